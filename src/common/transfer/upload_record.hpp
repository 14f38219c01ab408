#pragma once

#include <filesystem>
#include <string>

#include "common/transfer/upload_server.hpp"

// Private to common/transfer: what of an upload is kept in its info.json.
namespace educloud::transfer {

struct UploadRecord {
  UploadInfo info;
  UploadState state = UploadState::receiving;
  std::string note;
  std::string receipt;
  std::optional<Error> error;
};

/// 32 hex digits that only holders of `data_key` can compute, the same for the same upload.
std::string upload_uid(std::string_view data_key, const UploadInfo& info);
bool is_upload_uid(std::string_view text);

/// Durable when it returns.
Result<> save_record(const std::filesystem::path& folder, const UploadRecord& record);
/// Errors: not_found, corrupt (our own file, but a disk may lie).
Result<UploadRecord> load_record(const std::filesystem::path& folder);

nlohmann::json error_json(const Error& error);
/// The other way; `fallback` is the code if the text names none of ours.
Error error_from_json(const nlohmann::json& json, ErrorCode fallback);

/// Upload-Metadata of tus: "key base64,key base64". Errors: invalid_argument.
Result<std::map<std::string, std::string>> parse_metadata(std::string_view header);
std::string format_metadata(const std::map<std::string, std::string>& metadata);
std::string base64_encode(std::string_view data);
/// Strict: canonical padding, no blanks. Errors: invalid_argument.
Result<std::string> base64_decode(std::string_view text);

}  // namespace educloud::transfer
