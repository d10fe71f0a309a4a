//! The operations of the Bedrock runtime that are relayed.

/// An operation on a model.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `InvokeModel`: the model's own body and answer.
    Invoke,
    /// `InvokeModelWithResponseStream`: the same in event-stream frames.
    InvokeStream,
    /// `Converse`: Bedrock's own conversation format.
    Converse,
    /// `ConverseStream`: the same in event-stream frames.
    ConverseStream,
    /// `CountTokens`.
    CountTokens,
}

impl Operation {
    const ALL: [Self; 5] = [
        Self::Invoke,
        Self::InvokeStream,
        Self::Converse,
        Self::ConverseStream,
        Self::CountTokens,
    ];

    /// The operation that a path ends in.
    pub fn of_path(last: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.path() == last)
    }

    /// The last part of its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::InvokeStream => "invoke-with-response-stream",
            Self::Converse => "converse",
            Self::ConverseStream => "converse-stream",
            Self::CountTokens => "count-tokens",
        }
    }

    /// A bounded label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invoke => "bedrock_invoke",
            Self::InvokeStream => "bedrock_invoke_stream",
            Self::Converse => "bedrock_converse",
            Self::ConverseStream => "bedrock_converse_stream",
            Self::CountTokens => "bedrock_count_tokens",
        }
    }

    /// Whether it answers in event-stream frames.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::InvokeStream | Self::ConverseStream)
    }

    /// Whether body and answer are in Bedrock's conversation format rather than the model's own.
    pub fn is_converse(self) -> bool {
        matches!(self, Self::Converse | Self::ConverseStream)
    }

    /// Whether a model is at work, which costs.
    pub fn is_metered(self) -> bool {
        self != Self::CountTokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_path() {
        for operation in Operation::ALL {
            assert_eq!(Operation::of_path(operation.path()), Some(operation));
        }
        assert_eq!(Operation::of_path("async-invoke"), None);
    }
}
