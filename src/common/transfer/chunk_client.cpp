#include "common/transfer/chunk_client.hpp"

#include <algorithm>
#include <cstring>

#include "common/transfer/chunk_request.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::transfer {
namespace {

/// The frames of one answer, which must be those asked for.
class FrameCheck {
 public:
  FrameCheck(std::span<const chunk::ChunkId> ids, const ChunkClient::OnFrame& on_frame)
      : ids_(ids),
        on_frame_(on_frame),
        reader_([this](const chunk::FrameHeader& header, std::span<const char> stored) {
          return take(header, stored);
        }) {}
  Result<> feed(std::span<const char> data) { return reader_.feed(data); }
  Result<> finish() const {
    if (auto whole = reader_.finish(); !whole) return whole;
    if (next_ == ids_.size()) return {};
    return fail(ErrorCode::corrupt, "the answer ended after " + std::to_string(next_) + " of " +
                                        std::to_string(ids_.size()) + " chunks");
  }

 private:
  Result<> take(const chunk::FrameHeader& header, std::span<const char> stored) {
    if (next_ == ids_.size()) return fail(ErrorCode::corrupt, "more chunks came than were asked for");
    if (header.id != ids_[next_]) {
      return fail(ErrorCode::corrupt, "chunk " + header.id.hex() + " came for " + ids_[next_].hex());
    }
    ++next_;
    return on_frame_(header, stored);
  }

  std::span<const chunk::ChunkId> ids_;
  const ChunkClient::OnFrame& on_frame_;
  std::size_t next_ = 0;
  chunk::FrameReader reader_;
};

}  // namespace

struct ChunkClient::Impl {
  explicit Impl(ChunkRemote chunk_remote)
      : remote(std::move(chunk_remote)),
        path(version_path(remote.imgid, remote.version)),
        client(remote.base, remote.client) {}

  /// `below`: "" or "/manifest"; may have a query of its own.
  http::ClientRequest request(std::string method, std::string_view below) const {
    http::ClientRequest out;
    out.method = std::move(method);
    out.target = path + std::string(below);
    out.target += below.find('?') == std::string_view::npos ? '?' : '&';
    out.target += remote.grant;
    out.headers["Educloud-Priority"] = to_string(remote.priority);
    return out;
  }
  /// An error that names the host: the caller may know several.
  tl::unexpected<Error> failed(Error error, std::string_view what) const {
    return fail(std::move(error), std::string(what) + " at " + remote.base.authority());
  }

  ChunkRemote remote;
  std::string path;
  http::Client client;
};

ChunkClient::ChunkClient(ChunkRemote remote) : impl_(std::make_unique<Impl>(std::move(remote))) {}
ChunkClient::~ChunkClient() = default;
ChunkClient::ChunkClient(ChunkClient&&) noexcept = default;

const ChunkRemote& ChunkClient::remote() const {
  return impl_->remote;
}

Result<std::string> ChunkClient::manifest_text(std::stop_token stop) {
  constexpr std::string_view kWhat = "get the manifest";
  std::string text;
  const auto on_data = [&text](std::span<const char> data) -> Result<> {
    if (text.size() + data.size() > chunk::kMaxManifestBytes) {
      return fail(ErrorCode::too_large, "it is larger than any manifest");
    }
    text.append(data.data(), data.size());
    return {};
  };
  auto answer = impl_->client.download(impl_->request("GET", "/manifest"), {}, on_data, std::move(stop));
  if (!answer) return impl_->failed(std::move(answer.error()), kWhat);
  if (auto ok = answer->ok(); !ok) return impl_->failed(std::move(ok.error()), kWhat);
  if (auto decoded = chunk::Manifest::decode(text); !decoded) {
    return impl_->failed(std::move(decoded.error()), kWhat);
  }
  return text;
}

Result<chunk::Manifest> ChunkClient::manifest(const chunk::ChunkId& digest, std::stop_token stop) {
  auto text = manifest_text(std::move(stop));
  if (!text) return fail(std::move(text.error()));
  if (const auto found = chunk::ChunkId::of(*text); found != digest) {
    return fail(ErrorCode::corrupt, "the manifest of " + impl_->path + " at " +
                                        impl_->remote.base.authority() + " has the digest " + found.hex() +
                                        ", not " + digest.hex());
  }
  return chunk::Manifest::decode(*text);
}

Result<> ChunkClient::fetch(std::span<const chunk::ChunkId> ids, const OnFrame& on_frame,
                            std::stop_token stop) {
  constexpr std::string_view kWhat = "fetch chunks";
  if (ids.size() > kMaxIds) return fail(ErrorCode::invalid_argument, "too many chunks in one request");
  if (ids.empty()) return {};
  auto request = impl_->request("POST", "/chunks:fetch");
  request.body = chunk::encode_ids(ids);
  request.repeatable = true;
  FrameCheck frames(ids, on_frame);
  const auto on_data = [&frames](std::span<const char> data) { return frames.feed(data); };
  auto answer = impl_->client.download(request, {}, on_data, std::move(stop));
  if (!answer) return impl_->failed(std::move(answer.error()), kWhat);
  if (auto ok = answer->ok(); !ok) return impl_->failed(std::move(ok.error()), kWhat);
  if (auto all = frames.finish(); !all) return impl_->failed(std::move(all.error()), kWhat);
  return {};
}

Result<std::vector<bool>> ChunkClient::missing(std::span<const chunk::ChunkId> ids, std::stop_token stop) {
  constexpr std::string_view kWhat = "ask which chunks are missing";
  std::vector<bool> out;
  out.reserve(ids.size());
  while (!ids.empty()) {
    const auto some = ids.first(std::min(ids.size(), kMaxIds));
    ids = ids.subspan(some.size());
    auto request = impl_->request("POST", "/chunks:missing");
    request.body = chunk::encode_ids(some);
    request.repeatable = true;
    auto answer = impl_->client.send(request, stop);
    if (!answer) return impl_->failed(std::move(answer.error()), kWhat);
    auto json = answer->json();
    if (!json) return impl_->failed(std::move(json.error()), kWhat);
    const auto at = json->is_object() ? json->find("missing") : json->end();
    const bool good = json->is_object() && at != json->end() && at->is_string();
    auto bits = decode_bitmap(good ? at->get_ref<const std::string&>() : std::string{}, some.size());
    if (!bits) return impl_->failed(std::move(bits.error()), kWhat);
    out.insert(out.end(), bits->begin(), bits->end());
  }
  return out;
}

Result<> ChunkClient::store(std::string_view frames, std::stop_token stop) {
  constexpr std::string_view kWhat = "store chunks";
  if (frames.size() > kMaxStoreBytes) {
    return fail(ErrorCode::invalid_argument, "too many bytes of chunks in one request");
  }
  if (frames.empty()) return {};
  const auto read = [&frames, at = std::size_t{0}](std::span<char> out) mutable -> Result<std::size_t> {
    const std::size_t count = std::min(out.size(), frames.size() - at);
    std::memcpy(out.data(), frames.data() + at, count);
    at += count;
    return count;
  };
  auto answer =
      impl_->client.upload(impl_->request("POST", "/chunks:store"), frames.size(), read, std::move(stop));
  if (!answer) return impl_->failed(std::move(answer.error()), kWhat);
  if (auto ok = answer->ok(); !ok) return impl_->failed(std::move(ok.error()), kWhat);
  return {};
}

Result<std::string> ChunkClient::publish(const Publish& publish, std::stop_token stop) {
  constexpr std::string_view kWhat = "publish the version";
  auto request = impl_->request("PUT", "");
  request.body = publish.manifest;
  if (!publish.parent.empty()) request.headers["Educloud-Parent"] = publish.parent;
  if (!publish.cmdid.empty()) request.headers["Educloud-Cmdid"] = publish.cmdid;
  if (!publish.if_current.empty()) request.headers["If-Match"] = "\"" + publish.if_current + "\"";
  auto answer = impl_->client.send(request, std::move(stop));
  if (!answer) return impl_->failed(std::move(answer.error()), kWhat);
  auto json = answer->json();
  // What a person has to decide about is passed on word for word.
  if (!json && json.error().code == ErrorCode::conflict) return fail(std::move(json.error()));
  if (!json) return impl_->failed(std::move(json.error()), kWhat);
  const bool good = json->is_object() && json->contains("receipt") && (*json)["receipt"].is_string();
  if (!good) return impl_->failed({ErrorCode::corrupt, "the answer holds no receipt"}, kWhat);
  return (*json)["receipt"].get<std::string>();
}

Result<nlohmann::json> ChunkClient::get_json(std::string_view what, std::stop_token stop) {
  auto answer = impl_->client.send(impl_->request("GET", "/" + std::string(what)), std::move(stop));
  if (!answer) return impl_->failed(std::move(answer.error()), what);
  auto json = answer->json();
  if (!json) return impl_->failed(std::move(json.error()), what);
  return json;
}

}  // namespace educloud::transfer
