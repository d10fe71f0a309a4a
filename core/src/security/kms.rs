//! Data keys from AWS KMS. The encryption context is the record's identity, so that KMS itself refuses a swapped
//! ciphertext and `CloudTrail` names the record.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use zeroize::Zeroizing;

use super::envelope::{DataKey, EnvelopeError, RecordBinding, to_data_key};

/// KMS error codes that another try does not mend.
const TERMINAL: &[&str] = &[
    "AccessDeniedException",
    "DisabledException",
    "IncorrectKeyException",
    "InvalidCiphertextException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
    "UnrecognizedClientException",
    "ValidationException",
];

#[derive(Clone)]
pub(super) struct Kms {
    client: Client,
    key_id: String,
}

impl Kms {
    pub(super) const fn new(client: Client, key_id: String) -> Self {
        Self { client, key_id }
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// A fresh data key and its wrapped form.
    pub(super) async fn generate_data_key(
        &self,
        binding: &RecordBinding,
    ) -> Result<(DataKey, Vec<u8>), EnvelopeError> {
        let answer = self
            .client
            .generate_data_key()
            .key_id(&self.key_id)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(context(binding)))
            .send()
            .await
            .map_err(|error| self.failed("GenerateDataKey", &error))?;
        let (Some(plaintext), Some(wrapped)) = (answer.plaintext, answer.ciphertext_blob) else {
            return Err(EnvelopeError::Malformed);
        };
        let plaintext = Zeroizing::new(plaintext.into_inner());
        Ok((to_data_key(&plaintext)?, wrapped.into_inner()))
    }

    /// Unwraps a data key that the KMS key `key_id` wrapped for `binding`.
    pub(super) async fn decrypt(
        &self,
        binding: &RecordBinding,
        key_id: &str,
        wrapped: &[u8],
    ) -> Result<DataKey, EnvelopeError> {
        let answer = self
            .client
            .decrypt()
            .key_id(key_id)
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(Some(context(binding)))
            .send()
            .await
            .map_err(|error| self.failed("Decrypt", &error))?;
        let plaintext = Zeroizing::new(
            answer
                .plaintext
                .ok_or(EnvelopeError::Malformed)?
                .into_inner(),
        );
        to_data_key(&plaintext)
    }

    fn failed<E: ProvideErrorMetadata>(
        &self,
        operation: &'static str,
        error: &SdkError<E>,
    ) -> EnvelopeError {
        let code = match error {
            SdkError::ServiceError(answer) => {
                answer.err().code().unwrap_or("unknown error").to_owned()
            }
            SdkError::TimeoutError(_) => "timed out".to_owned(),
            SdkError::DispatchFailure(_) => {
                "no connection: check the network and the AWS credentials".to_owned()
            }
            _ => "unreadable answer".to_owned(),
        };
        let retryable = !TERMINAL.contains(&code.as_str());
        EnvelopeError::Kms {
            operation,
            key_id: self.key_id.clone(),
            message: code,
            retryable,
        }
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

fn context(binding: &RecordBinding) -> HashMap<String, String> {
    HashMap::from([
        ("spillway:table".to_owned(), binding.table.to_owned()),
        ("spillway:row".to_owned(), binding.row.to_string()),
        ("spillway:column".to_owned(), binding.column.to_owned()),
    ])
}
