#include "common/transfer/upload_record.hpp"

#include "common/sys/file.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::transfer {
namespace {

constexpr std::size_t kUidDigits = 32;
constexpr std::size_t kMetadataBytes = 4096;
constexpr std::size_t kMetadataKeys = 32;
constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr const char* kRecordFile = "info.json";

constexpr ErrorCode kCodes[] = {
    ErrorCode::invalid_argument, ErrorCode::unauthenticated, ErrorCode::permission_denied,
    ErrorCode::not_found,        ErrorCode::conflict,        ErrorCode::too_large,
    ErrorCode::exhausted,        ErrorCode::unavailable,     ErrorCode::timeout,
    ErrorCode::cancelled,        ErrorCode::corrupt,         ErrorCode::internal};

std::string text_of(const nlohmann::json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

std::uint64_t number_of(const nlohmann::json& json, const char* key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
}

std::optional<UploadState> parse_state(std::string_view text) {
  for (auto state :
       {UploadState::receiving, UploadState::processing, UploadState::done, UploadState::failed}) {
    if (to_string(state) == text) return state;
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(UploadState state) {
  switch (state) {
    case UploadState::receiving: return "receiving";
    case UploadState::processing: return "processing";
    case UploadState::done: return "done";
    case UploadState::failed: return "failed";
  }
  return "failed";
}

std::string upload_uid(std::string_view data_key, const UploadInfo& info) {
  return hmac_hex(data_key, "upload:" + info.imgid + "|" + std::to_string(info.version) + "|" + info.node +
                                "|" + info.cmdid)
      .substr(0, kUidDigits);
}

bool is_upload_uid(std::string_view text) {
  return text.size() == kUidDigits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

nlohmann::json error_json(const Error& error) {
  nlohmann::json json = {{"code", to_string(error.code)}, {"message", error.message}};
  if (!error.key.empty()) json["key"] = error.key;
  return json;
}

Error error_from_json(const nlohmann::json& json, ErrorCode fallback) {
  if (!json.is_object()) return {fallback, "the other side did not say why"};
  Error error{fallback, text_of(json, "message"), text_of(json, "key")};
  const std::string code = text_of(json, "code");
  for (ErrorCode one : kCodes) {
    if (to_string(one) == code) error.code = one;
  }
  return error;
}

Result<> save_record(const std::filesystem::path& folder, const UploadRecord& record) {
  nlohmann::json json = {
      {"uid", record.info.uid},           {"imgid", record.info.imgid},   {"version", record.info.version},
      {"node", record.info.node},         {"cmdid", record.info.cmdid},   {"digest", record.info.digest},
      {"format", record.info.format},     {"parent", record.info.parent}, {"length", record.info.length},
      {"state", to_string(record.state)}, {"note", record.note},          {"receipt", record.receipt}};
  if (record.error) json["error"] = error_json(*record.error);
  // 0600: the receipt and the uid are worth something to a thief.
  return sys::write_file_atomically(folder / kRecordFile,
                                    json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace), 0600);
}

Result<UploadRecord> load_record(const std::filesystem::path& folder) {
  auto text = sys::read_file(folder / kRecordFile, 64 * 1024);
  if (!text) return fail(text.error());
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  const auto state = json.is_object() ? parse_state(text_of(json, "state")) : std::nullopt;
  if (!state) return fail(ErrorCode::corrupt, (folder / kRecordFile).string() + " is not readable");
  UploadRecord out;
  out.info = {text_of(json, "uid"),    text_of(json, "imgid"),  static_cast<int>(number_of(json, "version")),
              text_of(json, "node"),   text_of(json, "cmdid"),  text_of(json, "digest"),
              text_of(json, "format"), text_of(json, "parent"), number_of(json, "length")};
  out.state = *state;
  out.note = text_of(json, "note");
  out.receipt = text_of(json, "receipt");
  if (json.contains("error")) out.error = error_from_json(json["error"], ErrorCode::internal);
  return out;
}

std::string base64_encode(std::string_view data) {
  std::string out;
  for (std::size_t i = 0; i < data.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      bits = bits << 8 | (i + j < data.size() ? static_cast<unsigned char>(data[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < 4; ++j)
      out += i + j <= data.size() ? kBase64[bits >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  const auto refuse = [] {
    return fail(ErrorCode::invalid_argument, "a value is not base64", "Upload-Metadata");
  };
  if (text.size() % 4 != 0) return refuse();
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string out;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto value = i >= text.size() - padding ? 0 : kBase64.find(text[i]);
    if (value == std::string_view::npos) return refuse();
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if (i % 4 != 3) continue;
    for (int shift : {16, 8, 0}) out += static_cast<char>(bits >> shift & 0xff);
    bits = 0;
  }
  out.resize(out.size() - padding);
  return base64_encode(out) == text ? Result<std::string>(out) : Result<std::string>(refuse());
}

Result<std::map<std::string, std::string>> parse_metadata(std::string_view header) {
  if (header.size() > kMetadataBytes)
    return fail(ErrorCode::too_large, "the metadata is too long", "Upload-Metadata");
  std::map<std::string, std::string> out;
  while (!header.empty()) {
    auto pair = header.substr(0, header.find(','));
    header.remove_prefix(std::min(pair.size() + 1, header.size()));
    while (pair.starts_with(' ')) pair.remove_prefix(1);
    const auto blank = std::min(pair.find(' '), pair.size());
    const std::string key(pair.substr(0, blank));
    auto value = base64_decode(pair.substr(std::min(blank + 1, pair.size())));
    if (!value) return fail(value.error());
    if (key.empty() || out.size() >= kMetadataKeys || !out.emplace(key, *value).second) {
      return fail(ErrorCode::invalid_argument, "a key is empty, repeated or one too many", "Upload-Metadata");
    }
  }
  return out;
}

std::string format_metadata(const std::map<std::string, std::string>& metadata) {
  std::string out;
  for (const auto& [key, value] : metadata) {
    if (value.empty()) continue;
    out += (out.empty() ? "" : ",") + key + " " + base64_encode(value);
  }
  return out;
}

}  // namespace educloud::transfer
