//! Streams of the Messages API and of AWS: reading and writing server-sent events, reading event-stream frames, metering in
//! passing, holding back until the first content. Pure: nothing here does I/O or reads a clock.

mod event;
mod frame_writer;
mod frames;
mod hold_back;
mod reader;
mod tap;
mod usage;
mod writer;

pub use event::{RawEvent, StreamEvent};
pub use frame_writer::exception_frame;
pub use frames::{Frame, FrameError, FrameReader};
pub use hold_back::HoldBack;
pub use reader::{EventTooLarge, SseReader};
pub use tap::{StreamFailure, UsageTap, guessed_input};
pub use usage::{CacheParts, UsageFold};
pub use writer::{PING, error_event, write_event};
