#include "cc/disks/disk_routes.hpp"

#include <algorithm>
#include <charconv>

#include "common/http/target.hpp"
#include "common/msg/codec.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::cc {
namespace {

constexpr std::int64_t kMaxEpoch = 9'000'000'000'000'000;
constexpr double kMaxVersion = 1e9;
constexpr std::uint64_t kBodyBytes = 256 * 1024;
constexpr std::uint64_t kBlockBytes = 2 << 20;  ///< of a copy
constexpr std::size_t kNameDigits = 16;         ///< of a copy and of a sending, hex
/// A moving VM's grant comes by way of the node that it leaves, so it is good for no more than the move.
constexpr std::string_view kMove = "/move";

struct OpenBody {
  std::string imgid;
  int version = 0;
  std::string digest;
  std::int64_t disk_bytes = 0;
  std::string source_grant;
  std::string build_imgid;
  std::string mode = "iscsi";
  int writes = 0;
  std::vector<std::string> lost;

  static constexpr auto fields() {
    using T = OpenBody;
    return std::make_tuple(
        msg::field("imgid", &T::imgid, msg::text(11, 11)),
        msg::field("version", &T::version, msg::range(1, kMaxVersion)),
        msg::field("digest", &T::digest, msg::text(64, 64)),
        msg::field("disk_bytes", &T::disk_bytes, msg::range(1, double(chunk::kMaxDiskBytes))),
        msg::field("source_grant", &T::source_grant, msg::text(1, 512)),
        msg::option("build_imgid", &T::build_imgid, msg::text(0, 11)),
        msg::option("mode", &T::mode, msg::choice("iscsi|nbd|copy")),
        msg::option("writes", &T::writes, msg::range(0, 1)), msg::option("lost", &T::lost, msg::list(1000)));
  }
};

struct SubmitBody {
  std::string imgid;
  int version = 0;
  std::string grant;
  std::string parent;
  std::string if_current;
  std::string cmdid;

  static constexpr auto fields() {
    using T = SubmitBody;
    return std::make_tuple(msg::field("imgid", &T::imgid, msg::text(11, 11)),
                           msg::field("version", &T::version, msg::range(1, kMaxVersion)),
                           msg::field("grant", &T::grant, msg::text(1, 512)),
                           msg::option("parent", &T::parent, msg::text(0, 64)),
                           msg::option("if_current", &T::if_current, msg::text(0, 64)),
                           msg::field("cmdid", &T::cmdid, msg::text(36, 36)));
  }
};

template <class Body>
Result<Body> read_body(const http::Request& request) {
  auto json = request.json();
  if (!json) return fail(json.error());
  return msg::from_json<Body>(*json);
}

http::Response working(const DiskStore::Progress& progress) {
  auto out = http::json_response(
      {{"state", "working"}, {"bytes_done", progress.bytes_done}, {"bytes_total", progress.bytes_total}},
      202);
  out.headers["Retry-After"] = "1";
  return out;
}

http::Response described(const DiskStore::Export& disk) {
  const bool is_nbd = disk.mode == "nbd";
  if (disk.mode == "copy") {
    return http::json_response({{"state", "open"},
                                {"mode", disk.mode},
                                {"copy", disk.copy},
                                {"disk_bytes", disk.disk_bytes},
                                {"data_bytes", disk.data_bytes},
                                {"is_out", disk.is_out ? 1 : 0},
                                {"left", disk.left}});
  }
  return http::json_response({{"state", "open"},
                              {"mode", disk.mode},
                              {"portal", disk.portal},
                              {is_nbd ? "export" : "iqn", disk.name},
                              {"lun", IscsiTargets::kLun},
                              {"user", disk.user},
                              {"secret", disk.secret},
                              {"left", disk.left}});
}

http::Response refused(const Error& error) {
  auto out = http::error_response(error);
  if (error.code == ErrorCode::unavailable) out.headers["Retry-After"] = "1";
  return out;
}

/// As an IPv4 client appears to a server that listens on both.
std::string plain_address(std::string address) {
  constexpr std::string_view kMapped = "::ffff:";
  return address.starts_with(kMapped) ? address.substr(kMapped.size()) : address;
}

Result<std::uint64_t> number_at(const http::Request& request, const std::string& key) {
  const auto it = request.query.find(key);
  const std::string text = it == request.query.end() ? "" : it->second;
  std::uint64_t value = 0;
  const auto* end = text.data() + text.size();
  const auto [at, errc] = std::from_chars(text.data(), end, value);
  if (errc == std::errc{} && at == end && value <= chunk::kMaxDiskBytes) return value;
  return fail(ErrorCode::invalid_argument, "'" + key + "' must be a number of bytes", key);
}

Result<std::string> name_at(const http::Request& request, const std::string& key) {
  const auto it = request.query.find(key);
  const bool is_name = it != request.query.end() && it->second.size() == kNameDigits &&
                       std::ranges::all_of(it->second, [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (is_name) return it->second;
  return fail(ErrorCode::invalid_argument, "'" + key + "' must be 16 hex digits", key);
}

/// Decimal without sign or leading zeros, so that a grant fits exactly one spelling of a path.
Result<std::int64_t> parse_epoch(const std::string& text) {
  std::int64_t epoch = -1;
  const auto* end = text.data() + text.size();
  const auto [at, errc] = std::from_chars(text.data(), end, epoch);
  if (errc == std::errc{} && at == end && epoch >= 0 && epoch <= kMaxEpoch && std::to_string(epoch) == text)
    return epoch;
  return fail(ErrorCode::invalid_argument, "the epoch must be a number from 0", "epoch");
}

}  // namespace

void DiskRoutes::add_routes(http::Router& router) {
  using Method = Result<http::Response> (DiskRoutes::*)(const http::Request&);
  const auto add = [&](const char* method, const char* pattern, Method call,
                       std::uint64_t body_limit = kBodyBytes) {
    const auto handler = [this, call](const http::Request& request) {
      auto response = (this->*call)(request);
      auto out = response ? std::move(*response) : refused(response.error());
      // Holds a secret.
      out.headers["Cache-Control"] = "no-store";
      return out;
    };
    router.add({.method = method, .pattern = pattern, .handler = handler, .body_limit = body_limit});
  };
  add("POST", "/disks/{insid}/{epoch}/open", &DiskRoutes::open);
  add("POST", "/disks/{insid}/{epoch}/join", &DiskRoutes::join);
  add("POST", "/disks/{insid}/{epoch}/keep", &DiskRoutes::keep);
  add("POST", "/disks/{insid}/{epoch}/leave", &DiskRoutes::leave);
  add("POST", "/disks/{insid}/{epoch}/close", &DiskRoutes::close);
  add("POST", "/disks/{insid}/{epoch}/submit", &DiskRoutes::submit);
  add("DELETE", "/disks/{insid}/{epoch}", &DiskRoutes::remove);
  add("GET", "/disks/{insid}/{epoch}/data", &DiskRoutes::read);
  add("PUT", "/disks/{insid}/{epoch}/data", &DiskRoutes::put, kBlockBytes);
  add("POST", "/disks/{insid}/{epoch}/back", &DiskRoutes::take_back);
}

Result<DiskRoutes::Caller> DiskRoutes::check(const http::Request& request, std::string_view scope) const {
  auto instance = InstanceId::parse(request.param("insid"));
  if (!instance) return fail(instance.error());
  auto epoch = parse_epoch(std::string(request.param("epoch")));
  if (!epoch) return fail(epoch.error());
  const auto path = "/disks/" + instance->str() + "/" + std::to_string(*epoch) + std::string(scope);
  auto node = transfer::verify_grant(key_, "PUT", path, request.query, clock_.wall_ms() / 1000);
  if (!node) return fail(node.error());
  if (auto name = HostName::parse(*node); !name) return fail(name.error());
  return Caller{*instance, *epoch, *node, plain_address(request.remote_address)};
}

Result<> DiskRoutes::check_version(const Caller& caller, const std::string& method, const std::string& imgid,
                                   int version, const std::string& grant) const {
  if (auto id = ImageId::parse(imgid); !id) return fail(id.error());
  auto target = http::parse_target("/?" + grant);
  if (!target) return fail(target.error(), "grant of the version");
  auto node = transfer::verify_grant(key_, method, transfer::version_path(imgid, version), target->query,
                                     clock_.wall_ms() / 1000);
  if (!node) return fail(node.error(), "grant of the version");
  if (*node == caller.node) return {};
  return fail(ErrorCode::permission_denied, "the grant of the version is for another node");
}

Result<http::Response> DiskRoutes::open(const http::Request& request) {
  auto caller = check(request);
  if (!caller) return fail(caller.error());
  auto body = read_body<OpenBody>(request);
  if (!body) return fail(body.error());
  if (auto ok = check_version(*caller, "GET", body->imgid, body->version, body->source_grant); !ok) {
    return fail(ok.error());
  }
  auto digest = chunk::ChunkId::parse(body->digest);
  if (!digest) return fail(digest.error());
  if (!body->build_imgid.empty()) {
    if (auto id = ImageId::parse(body->build_imgid); !id) return fail(id.error());
    if (kind_of(caller->instance) != InstanceKind::TMP) {
      return fail(ErrorCode::invalid_argument, "only a TMP instance builds an image", "build_imgid");
    }
  }
  auto answer =
      store_.open({caller->instance,
                   caller->node,
                   caller->address,
                   caller->epoch,
                   {body->imgid, body->version, *digest, static_cast<std::uint64_t>(body->disk_bytes)},
                   body->build_imgid,
                   body->mode,
                   body->writes == 1,
                   body->lost});
  if (!answer) return fail(answer.error());
  if (!answer->done) return working(answer->progress);
  return described(*answer->done);
}

Result<http::Response> DiskRoutes::join(const http::Request& request) {
  auto caller = check(request, kMove);
  if (!caller) return fail(caller.error());
  auto answer = store_.join({.instance = caller->instance,
                             .node = caller->node,
                             .address = caller->address,
                             .epoch = caller->epoch,
                             .source = {},
                             .build_imgid = {}});
  if (!answer) return fail(answer.error());
  return answer->done ? described(*answer->done) : working(answer->progress);
}

Result<http::Response> DiskRoutes::keep(const http::Request& request) {
  auto caller = check(request, kMove);
  if (!caller) return fail(caller.error());
  auto answer = store_.keep(caller->instance, caller->epoch, caller->address);
  if (!answer) return fail(answer.error());
  return answer->done ? http::json_response({{"state", "open"}}) : working(answer->progress);
}

Result<http::Response> DiskRoutes::leave(const http::Request& request) {
  auto caller = check(request, kMove);
  if (!caller) return fail(caller.error());
  auto answer = store_.leave(caller->instance, caller->epoch);
  if (!answer) return fail(answer.error());
  return answer->done ? http::json_response({{"state", "left"}}) : working(answer->progress);
}

Result<http::Response> DiskRoutes::close(const http::Request& request) {
  auto caller = check(request);
  if (!caller) return fail(caller.error());
  auto answer = store_.close(caller->instance, caller->epoch);
  if (!answer) return fail(answer.error());
  return answer->done ? http::json_response({{"state", "closed"}}) : working(answer->progress);
}

Result<http::Response> DiskRoutes::submit(const http::Request& request) {
  auto caller = check(request);
  if (!caller) return fail(caller.error());
  auto body = read_body<SubmitBody>(request);
  if (!body) return fail(body.error());
  if (auto ok = check_version(*caller, "PUT", body->imgid, body->version, body->grant); !ok) {
    return fail(ok.error());
  }
  for (const auto* parent : {&body->parent, &body->if_current}) {
    if (auto ok = transfer::check_parent(*parent); !ok) return fail(ok.error());
  }
  if (auto id = CommandId::parse(body->cmdid); !id) return fail(id.error());
  auto answer = store_.submit({caller->instance, caller->epoch, body->imgid, body->version, body->parent,
                               body->if_current, body->cmdid});
  if (!answer) return fail(answer.error());
  if (!answer->done) return working(answer->progress);
  return http::json_response({{"state", "submitted"}, {"receipt", *answer->done}});
}

Result<DiskStore::Holder> DiskRoutes::holder(const http::Request& request) const {
  auto caller = check(request);
  if (!caller) return fail(caller.error());
  auto copy = name_at(request, "copy");
  if (!copy) return fail(copy.error());
  return DiskStore::Holder{caller->instance, caller->node, caller->epoch, std::move(*copy)};
}

Result<http::Response> DiskRoutes::read(const http::Request& request) {
  auto who = holder(request);
  if (!who) return fail(who.error());
  auto at = number_at(request, "at");
  if (!at) return fail(at.error());
  auto piece = store_.read(*who, *at);
  if (!piece) return fail(piece.error());
  http::Response out;
  out.headers["Content-Type"] = "application/octet-stream";
  out.headers["Disk-At"] = std::to_string(piece->at);
  out.headers["Disk-Bytes"] = std::to_string(piece->disk_bytes);
  out.headers["Block-SHA256"] = chunk::ChunkId::of(piece->bytes).hex();
  out.body = std::move(piece->bytes);
  return out;
}

/// What put and take_back have in common.
Result<DiskReturns::Block> DiskRoutes::block_of(const http::Request& request) {
  DiskReturns::Block out;
  for (const auto& [key, into] : {std::pair("size", &out.size), std::pair("data", &out.data),
                                  std::pair("after", &out.after), std::pair("at", &out.at)}) {
    auto value = number_at(request, key);
    if (!value) return fail(value.error());
    *into = *value;
  }
  return out;
}

Result<http::Response> DiskRoutes::put(const http::Request& request) {
  auto who = holder(request);
  if (!who) return fail(who.error());
  auto give = name_at(request, "give");
  if (!give) return fail(give.error());
  auto block = block_of(request);
  if (!block) return fail(block.error());
  if (request.header("Block-SHA256") != chunk::ChunkId::of(request.body).hex())
    return fail(ErrorCode::unavailable, "a block came changed; send it again");
  block->bytes = request.body;
  auto end = store_.put(*who, *give, *block);
  if (!end) return fail(end.error());
  return http::json_response({{"end", *end}});
}

Result<http::Response> DiskRoutes::take_back(const http::Request& request) {
  auto who = holder(request);
  if (!who) return fail(who.error());
  auto give = name_at(request, "give");
  if (!give) return fail(give.error());
  auto last = block_of(request);
  if (!last) return fail(last.error());
  auto answer = store_.take_back(*who, *give, *last);
  if (!answer) return fail(answer.error());
  if (!answer->done) return working(answer->progress);
  return http::json_response({{"state", *answer->done ? "back" : "again"}});
}

Result<http::Response> DiskRoutes::remove(const http::Request& request) {
  auto caller = check(request);
  if (!caller) return fail(caller.error());
  auto answer = store_.remove(caller->instance, caller->epoch);
  if (!answer) return fail(answer.error());
  return answer->done ? http::json_response({{"state", "removed"}}) : working(answer->progress);
}

}  // namespace educloud::cc
