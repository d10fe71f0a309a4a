//! The other fields: how to sample, and what Converse passes on to the model as it is.

use serde_json::value::RawValue;

use super::{Body, Writer};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::bedrock::betas::{
    self, CONTEXT_MANAGEMENT, EFFORT, TOOL_EXAMPLES, TOOL_SEARCH,
};
use crate::adapter::bedrock::models::Vendor;
use crate::adapter::json::{self, Kind};

impl Writer<'_> {
    /// Appends them. Gives the stop sequence if there is but one.
    pub(super) fn fields<'b>(
        &mut self,
        body: &Body<'_>,
        betas: impl Iterator<Item = &'b str>,
        choice: Option<&RawValue>,
    ) -> Result<Option<String>, TranslateError> {
        let only = self.inference_config(body)?;
        let [effort, format] = match body.output_config {
            Some(config) => json::pick(config.get(), ["effort", "format"]).map_err(|_| {
                TranslateError::invalid("output_config", "Input should be a valid dictionary")
            })?,
            None => [None; 2],
        };
        // The second name is that of the field's beta.
        self.output_config(format.or(body.output_format))?;
        match self.model.vendor {
            Vendor::Anthropic => {
                self.for_claude(body, betas, choice, effort);
                if body.stop_sequences.is_some() {
                    self.put(",\"additionalModelResponseFieldPaths\":[\"/stop_sequence\"]");
                }
            }
            Vendor::Nova => self.for_nova(body),
            Vendor::Other => {}
        }
        Ok(only)
    }

    fn inference_config(&mut self, body: &Body<'_>) -> Result<Option<String>, TranslateError> {
        self.put(",\"inferenceConfig\":{");
        let start = self.out.len();
        if let Some(asked) = body.max_tokens {
            let asked = json::count(Some(asked)).ok_or_else(|| {
                TranslateError::invalid("max_tokens", "Input should be a valid integer")
            })?;
            let most = self.model.max_output.unwrap_or(u64::MAX);
            self.put(&format!("\"maxTokens\":{}", asked.min(most)));
        }
        for (name, wire, value) in [
            ("temperature", "temperature", body.temperature),
            ("top_p", "topP", body.top_p),
        ] {
            let Some(value) = value else { continue };
            if json::kind_of(value) != Kind::Number {
                return Err(TranslateError::invalid(
                    name,
                    "Input should be a valid number",
                ));
            }
            self.next_field(start, wire);
            self.put(value.get());
        }
        let mut only = None;
        if let Some(sequences) = body.stop_sequences {
            let list: Vec<String> = serde_json::from_str(sequences.get()).map_err(|_| {
                TranslateError::invalid("stop_sequences", "Input should be a valid list of strings")
            })?;
            if !list.is_empty() {
                self.next_field(start, "stopSequences");
                self.put(sequences.get());
            }
            only = (list.len() == 1).then(|| list.into_iter().next()).flatten();
        }
        self.put("}");
        Ok(only)
    }

    /// Begins a member of the object whose inside began at `start`.
    fn next_field(&mut self, start: usize, name: &str) {
        if self.out.len() > start {
            self.out.push(b',');
        }
        self.put("\"");
        self.put(name);
        self.put("\":");
    }

    /// A JSON schema that the answer is to follow.
    fn output_config(&mut self, format: Option<&RawValue>) -> Result<(), TranslateError> {
        let Some(format) = format else { return Ok(()) };
        let [kind, schema] = json::pick(format.get(), ["type", "schema"]).map_err(|_| {
            TranslateError::invalid("output_config.format", "Input should be a valid dictionary")
        })?;
        let (Some(r#""json_schema""#), Some(schema)) = (kind.map(RawValue::get), schema) else {
            return Err(TranslateError::invalid(
                "output_config.format",
                "Input should be a 'json_schema' with a schema",
            ));
        };
        self.put(
            ",\"outputConfig\":{\"textFormat\":{\"type\":\"json_schema\",\"structure\":{\"jsonSchema\":{\"name\":\"output\",\"schema\":",
        );
        self.put_text(schema.get());
        self.put("}}}}");
        Ok(())
    }

    /// What Converse passes on to Claude. A field travels with its beta, or not at all.
    fn for_claude<'b>(
        &mut self,
        body: &Body<'_>,
        betas: impl Iterator<Item = &'b str>,
        choice: Option<&RawValue>,
        effort: Option<&RawValue>,
    ) {
        let effort = effort.filter(|_| self.model.effort);
        let mut betas = betas::for_bedrock(betas, body.anthropic_beta, |beta| {
            beta == EFFORT && effort.is_some()
        });
        // What they are for, Converse has no form for.
        betas.retain(|beta| ![TOOL_EXAMPLES, TOOL_SEARCH].contains(beta));
        self.put(",\"additionalModelRequestFields\":{");
        let start = self.out.len();
        if !betas.is_empty() {
            self.next_field(start, "anthropic_beta");
            betas::write(&mut self.out, &betas);
        }
        let context_management = body
            .context_management
            .filter(|_| betas.contains(&CONTEXT_MANAGEMENT));
        if let Some(given) = body.thinking {
            self.next_field(start, "thinking");
            self.put(&betas::thinking(given));
        }
        for (name, value) in [
            ("top_k", body.top_k),
            ("context_management", context_management),
            ("tool_choice", choice),
        ] {
            if let Some(value) = value {
                self.next_field(start, name);
                self.put(value.get());
            }
        }
        if let Some(effort) = effort {
            self.next_field(start, "output_config");
            self.put("{\"effort\":");
            self.put(effort.get());
            self.put("}");
        }
        if !self.native_tools.is_empty() {
            self.next_field(start, "tools");
            let tools = self.native_tools.join(",");
            self.put("[");
            self.put(&tools);
            self.put("]");
        }
        self.close_optional(start, ",\"additionalModelRequestFields\":{");
    }

    /// Source: <https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html>.
    fn for_nova(&mut self, body: &Body<'_>) {
        if let Some(top_k) = body
            .top_k
            .filter(|top_k| json::kind_of(top_k) == Kind::Number)
        {
            self.put(",\"additionalModelRequestFields\":{\"inferenceConfig\":{\"topK\":");
            self.put(top_k.get());
            self.put("}}");
        }
    }

    /// Closes an object, or takes it back if nothing is in it.
    fn close_optional(&mut self, start: usize, opening: &str) {
        if self.out.len() == start {
            self.out.truncate(start - opening.len());
        } else {
            self.put("}");
        }
    }
}
