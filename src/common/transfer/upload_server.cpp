#include "common/transfer/upload_server.hpp"

#include <charconv>

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"
#include "common/transfer/upload_table.hpp"

namespace educloud::transfer {
namespace {

constexpr std::string_view kTusVersion = "1.0.0";
constexpr std::string_view kPatchType = "application/offset+octet-stream";

http::Response with_tus(http::Response response) {
  response.headers["Tus-Resumable"] = kTusVersion;
  response.headers["Cache-Control"] = "no-store";
  return response;
}

http::Response refuse(const Error& error, int status = 0) {
  auto response = http::error_response(error);
  if (status != 0) response.status = status;
  if (error.code == ErrorCode::unavailable) response.headers["Retry-After"] = "1";
  return with_tus(std::move(response));
}

http::Response empty_response(int status) {
  http::Response response;
  response.status = status;
  response.body = std::string{};
  return with_tus(std::move(response));
}

std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (errc != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The answer to a client that speaks no or another tus; none if it is ours.
std::optional<http::Response> check_version(const http::Request& request) {
  if (request.header("Tus-Resumable") == kTusVersion) return std::nullopt;
  auto response = refuse({ErrorCode::invalid_argument, "Tus-Resumable must be 1.0.0", "Tus-Resumable"}, 412);
  response.headers["Tus-Version"] = kTusVersion;
  return response;
}

/// Reads what still comes and then gives the prepared answer, so that the client surely sees it.
class RefusingSink : public http::BodySink {
 public:
  explicit RefusingSink(http::Response response) : response_(std::move(response)) {}
  Result<> write(std::span<const char>) override { return {}; }
  http::Response finish() override { return std::move(response_); }

 private:
  http::Response response_;
};

class PatchSink : public http::BodySink {
 public:
  explicit PatchSink(std::unique_ptr<Append> append) : append_(std::move(append)) {}
  Result<> write(std::span<const char> data) override { return append_->append(data); }
  http::Response finish() override {
    auto offset = append_->finish();
    append_.reset();  // if it was the last byte, processing begins before the client hears of it
    if (!offset) return refuse(offset.error());
    auto response = empty_response(204);
    response.headers["Upload-Offset"] = std::to_string(*offset);
    return response;
  }

 private:
  std::unique_ptr<Append> append_;
};

Result<int> parse_version_number(std::string_view text) {
  const auto value = parse_count(text);
  if (!value || *value < 1 || *value > 1'000'000'000 || std::to_string(*value) != text) {
    return fail(ErrorCode::invalid_argument, "version must be a number from 1", "version");
  }
  return static_cast<int>(*value);
}

std::string query_value(const http::Request& request, const std::string& key) {
  const auto at = request.query.find(key);
  return at == request.query.end() ? std::string{} : at->second;
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Result<> take_metadata(const http::Request& request, UploadInfo& info) {
  auto metadata = parse_metadata(request.header("Upload-Metadata"));
  if (!metadata) return fail(metadata.error());
  info.cmdid = (*metadata)["cmdid"];
  info.digest = (*metadata)["digest"];
  info.format = (*metadata)["format"];
  info.parent = (*metadata)["parent"];
  if (!info.cmdid.empty()) {
    if (auto id = CommandId::parse(info.cmdid); !id) return fail(id.error());
  }
  if (!info.digest.empty() && !is_sha256(info.digest)) {
    return fail(ErrorCode::invalid_argument, "digest must be a SHA-256 in lower-case hex", "digest");
  }
  constexpr std::string_view kFormats[] = {"", "qcow2", "raw", "vdi", "vmdk", "vhdx"};
  if (std::find(std::begin(kFormats), std::end(kFormats), info.format) == std::end(kFormats)) {
    return fail(ErrorCode::invalid_argument, "format must be qcow2, raw, vdi, vmdk or vhdx", "format");
  }
  return check_parent(info.parent);
}

/// Everything a POST says, checked: ids, grant, length, metadata.
Result<UploadInfo> read_creation(const http::Request& request, const UploadServerOptions& options) {
  auto imgid = ImageId::parse(query_value(request, "image"));
  if (!imgid) return fail(imgid.error());
  auto version = parse_version_number(query_value(request, "version"));
  if (!version) return fail(version.error());
  const std::int64_t now_s = SystemClock().wall_ms() / 1000;
  auto node =
      verify_grant(options.data_key, "PUT", version_path(imgid->str(), *version), request.query, now_s);
  if (!node) return fail(node.error());
  UploadInfo info;
  info.imgid = imgid->str();
  info.version = *version;
  info.node = *node;
  const auto length = parse_count(request.header("Upload-Length"));
  if (!length || *length == 0) {
    return fail(ErrorCode::invalid_argument, "Upload-Length must be a number above 0", "Upload-Length");
  }
  if (*length > options.max_bytes) {
    return fail(ErrorCode::too_large,
                "an image file may have at most " + std::to_string(options.max_bytes) + " bytes");
  }
  info.length = *length;
  if (request.content_length != 0) {
    return fail(ErrorCode::invalid_argument,
                "the creation takes no bytes (no creation-with-upload): PATCH them");
  }
  if (auto ok = take_metadata(request, info); !ok) return fail(ok.error());
  return info;
}

http::Response state_response(const UploadStatus& status) {
  nlohmann::json json = {{"state", to_string(status.state)}, {"prompt", status.prompt},
                         {"bytes_done", status.bytes_done},  {"bytes_total", status.bytes_total},
                         {"image", status.info.imgid},       {"version", status.info.version},
                         {"cmdid", status.info.cmdid},       {"receipt", status.receipt}};
  if (status.error) json["error"] = error_json(*status.error);
  auto response = http::json_response(json);
  response.headers["Cache-Control"] = "no-store";
  return response;
}

}  // namespace

struct UploadServer::Impl {
  explicit Impl(UploadServerOptions options) : table(std::move(options)) {}

  http::Response options() const {
    auto response = empty_response(204);
    response.headers["Tus-Version"] = kTusVersion;
    response.headers["Tus-Extension"] = "creation,termination";
    response.headers["Tus-Max-Size"] = std::to_string(table.options().max_bytes);
    return response;
  }

  http::Response create(const http::Request& request) {
    if (auto refused = check_version(request)) return *refused;
    auto info = read_creation(request, table.options());
    if (!info) return refuse(info.error());
    auto status = table.create(std::move(*info));
    if (!status) return refuse(status.error());
    auto response = empty_response(201);
    response.headers["Location"] = "/uploads/" + status->info.uid;
    return response;
  }

  std::shared_ptr<Upload> find(const http::Request& request) const {
    const std::string& uid = request.param("uid");
    return is_upload_uid(uid) ? table.get(uid) : nullptr;
  }

  http::Response head(const http::Request& request) const {
    if (auto refused = check_version(request)) return *refused;
    const auto upload = find(request);
    if (!upload) return refuse({ErrorCode::not_found, "there is no such upload (any more)"});
    const auto status = status_of(*upload);
    const bool receiving = status.state == UploadState::receiving;
    auto response = empty_response(200);
    response.headers["Upload-Offset"] = std::to_string(receiving ? status.bytes_done : status.info.length);
    response.headers["Upload-Length"] = std::to_string(status.info.length);
    return response;
  }

  std::unique_ptr<http::BodySink> patch(const http::Request& request) {
    const auto answer = [](http::Response response) {
      return std::make_unique<RefusingSink>(std::move(response));
    };
    if (auto refused = check_version(request)) return answer(std::move(*refused));
    if (request.header("Content-Type") != kPatchType) {
      return answer(refuse(
          {ErrorCode::invalid_argument, "Content-Type must be " + std::string(kPatchType), "Content-Type"},
          415));
    }
    const auto offset = parse_count(request.header("Upload-Offset"));
    if (!offset)
      return answer(refuse({ErrorCode::invalid_argument, "Upload-Offset is no number", "Upload-Offset"}));
    auto append = table.begin_append(request.param("uid"), *offset, request.content_length);
    if (!append) return answer(refuse(append.error(), append.error().key == "locked" ? 423 : 0));
    return std::make_unique<PatchSink>(std::move(*append));
  }

  http::Response terminate(const http::Request& request) {
    if (auto refused = check_version(request)) return *refused;
    if (!table.remove(request.param("uid")))
      return refuse({ErrorCode::not_found, "there is no such upload (any more)"});
    return empty_response(204);
  }

  /// POST on an upload with X-HTTP-Method-Override: for clients whose proxies know no PATCH or DELETE.
  std::unique_ptr<http::BodySink> overridden(const http::Request& request) {
    const std::string_view method = request.header("X-HTTP-Method-Override");
    if (method == "PATCH") return patch(request);
    if (method == "DELETE") return std::make_unique<RefusingSink>(terminate(request));
    if (method == "HEAD") return std::make_unique<RefusingSink>(head(request));
    return std::make_unique<RefusingSink>(
        refuse({ErrorCode::invalid_argument, "POST here needs X-HTTP-Method-Override"}, 405));
  }

  UploadTable table;
};

UploadServer::UploadServer(UploadServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
UploadServer::~UploadServer() {
  stop();
}
Result<> UploadServer::start() {
  return impl_->table.start();
}
void UploadServer::stop() {
  impl_->table.stop();
}

void UploadServer::add_routes(http::Router& router) {
  Impl* impl = impl_.get();
  const std::uint64_t limit = impl->table.options().max_bytes;
  using Sink = Result<std::unique_ptr<http::BodySink>>;
  for (const char* pattern : {"/uploads", "/uploads/{uid}"}) {
    router.add({"OPTIONS", pattern, [impl](const http::Request&) { return impl->options(); }});
  }
  router.add({"POST", "/uploads", [impl](const http::Request& request) { return impl->create(request); }});
  const std::string one = "/uploads/{uid}";
  router.add({"HEAD", one, [impl](const http::Request& request) { return impl->head(request); }});
  router.add({"DELETE", one, [impl](const http::Request& request) { return impl->terminate(request); }});
  router.add({"GET", one, [impl](const http::Request& request) {
                const auto upload = impl->find(request);
                if (!upload) return refuse({ErrorCode::not_found, "there is no such upload (any more)"});
                return state_response(status_of(*upload));
              }});
  router.add({"PATCH",
              one,
              {},
              [impl](const http::Request& request) -> Sink { return impl->patch(request); },
              limit});
  router.add({"POST",
              one,
              {},
              [impl](const http::Request& request) -> Sink { return impl->overridden(request); },
              limit});
}

std::vector<UploadStatus> UploadServer::list() const {
  return impl_->table.list();
}

std::optional<UploadStatus> UploadServer::find(const std::string& uid) const {
  const auto upload = impl_->table.get(uid);
  return upload ? std::optional(status_of(*upload)) : std::nullopt;
}

std::optional<UploadStatus> UploadServer::find_by_command(const std::string& cmdid) const {
  for (auto& status : list()) {
    if (status.info.cmdid == cmdid) return std::move(status);
  }
  return std::nullopt;
}

bool UploadServer::remove(const std::string& uid) {
  return impl_->table.remove(uid);
}

}  // namespace educloud::transfer
