#include "nc/app/cc_disks.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "common/msg/codec.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/disk_transfer.hpp"

namespace educloud::nc {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAgain{300};
constexpr std::chrono::seconds kConnect{3};
constexpr std::chrono::seconds kAnswer{10};  // the cc answers within half a second
constexpr std::chrono::seconds kBlock{60};   // of a copy; most of it may be under way when all is sent
constexpr std::size_t kIqnBytes = 223;
constexpr std::size_t kLeastSecret = 12, kMostSecret = 64;
constexpr std::size_t kCopyDigits = 16;
constexpr int kAccepted = 202;

bool is_made_of(std::string_view text, std::string_view others) {
  return std::ranges::all_of(text, [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           others.find(c) != others.npos;
  });
}

bool is_address(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  return inet_pton(AF_INET, host.c_str(), &v4) == 1 || inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

struct OpenAnswer {
  std::string portal, iqn, name, user, secret, left, mode = "iscsi";
  int lun = 1;

  static constexpr auto fields() {
    using T = OpenAnswer;
    return std::make_tuple(
        msg::field("portal", &T::portal, msg::text(3, 64)),
        msg::option("mode", &T::mode, msg::choice("iscsi|nbd")),
        msg::option("iqn", &T::iqn, msg::text(5, kIqnBytes)),
        msg::option("export", &T::name, msg::text(1, 40)), msg::field("user", &T::user, msg::text(1, 40)),
        msg::field("secret", &T::secret, msg::text(kLeastSecret, kMostSecret)),
        msg::option("left", &T::left, msg::text(0, 64)), msg::field("lun", &T::lun, msg::range(0, 255)));
  }
};

struct CopyAnswer {
  std::string copy, left;
  std::int64_t disk_bytes = 0, data_bytes = 0;
  int is_out = 0;

  static constexpr auto fields() {
    using T = CopyAnswer;
    return std::make_tuple(msg::field("copy", &T::copy, msg::text(kCopyDigits, kCopyDigits)),
                           msg::option("left", &T::left, msg::text(0, 64)),
                           msg::option("is_out", &T::is_out, msg::range(0, 1)),
                           msg::field("disk_bytes", &T::disk_bytes, msg::range(1, 9.0e15)),
                           msg::field("data_bytes", &T::data_bytes, msg::range(0, 9.0e15)));
  }
};

/// Only what QEMU may be told to connect to.
Result<CcDisks::Opened> read_opened(const json& body) {
  if (body.is_object() && body.value("mode", json()) == json("copy")) {
    auto told = msg::from_json<CopyAnswer>(body);
    if (!told) return fail(told.error(), "the cc's answer about a copy of a database disk");
    if (!is_made_of(told->copy, ""))
      return fail(ErrorCode::corrupt, "the cc's name of a copy has strange characters", "copy");
    CcDisks::Opened out;
    out.copy = CcDisks::Copy{told->copy, static_cast<std::uint64_t>(told->disk_bytes),
                             static_cast<std::uint64_t>(told->data_bytes), told->is_out == 1};
    out.left = std::move(told->left);
    return out;
  }
  auto answer = msg::from_json<OpenAnswer>(body);
  if (!answer) return fail(answer.error(), "the cc's answer about a database disk");
  const auto colon = answer->portal.rfind(':');
  if (colon == std::string::npos) return fail(ErrorCode::corrupt, "the cc names no port", "portal");
  std::string host = answer->portal.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  int port = 0;
  const char* end = answer->portal.data() + answer->portal.size();
  const auto [at, errc] = std::from_chars(answer->portal.data() + colon + 1, end, port);
  const bool is_port = errc == std::errc{} && at == end && port > 0 && port < 65536;
  if (!is_port || !is_address(host)) return fail(ErrorCode::corrupt, "the cc's portal is none", "portal");
  const bool is_nbd = answer->mode == "nbd";
  const bool is_clean = is_made_of(answer->user, "") && is_made_of(answer->secret, "") &&
                        (is_nbd ? !answer->name.empty() && is_made_of(answer->name, "")
                                : answer->iqn.starts_with("iqn.") && is_made_of(answer->iqn, ".:-"));
  if (!is_clean) return fail(ErrorCode::corrupt, "the cc's target has strange characters", "iqn");
  CcDisks::Opened out;
  out.secret = answer->secret;
  out.left = std::move(answer->left);
  if (is_nbd) {
    out.nbd = NbdDisk{host, port, answer->name, answer->user};
  } else {
    out.disk = {std::move(host), port, answer->iqn, answer->lun, answer->user};
  }
  return out;
}

std::uint64_t number(const json& body, const char* key) {
  const auto at = body.find(key);
  return at != body.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
}

class HttpCcDisks : public CcDisks {
 public:
  explicit HttpCcDisks(CcDiskOptions options) : options_(std::move(options)) {
    options_.client.connect_timeout = kConnect;
    options_.client.io_timeout = kAnswer;
  }

  Result<Opened> open(const Opening& request, const OnCopied& progress, std::stop_token stop) override {
    json body = {{"imgid", request.source.imgid},        {"version", request.source.version},
                 {"digest", request.source.digest},      {"disk_bytes", request.source.disk_bytes},
                 {"source_grant", request.source_grant}, {"mode", request.mode}};
    if (!request.build_imgid.empty()) body["build_imgid"] = request.build_imgid;
    if (request.writes) body["writes"] = 1;
    if (!request.lost.empty()) body["lost"] = request.lost;
    auto answer = ask(post(request.leave, "/open", body), progress, options_.patience, stop);
    if (!answer) return fail(answer.error());
    return read_opened(*answer);
  }

  Result<Opened> join(const Leave& leave, std::stop_token stop) override {
    auto answer = ask(post(leave, "/join", nullptr), {}, options_.patience, stop);
    if (!answer) return fail(answer.error());
    return read_opened(*answer);
  }

  Result<> keep(const Leave& leave, std::stop_token stop) override {
    return done(ask(post(leave, "/keep", nullptr), {}, options_.close_patience, stop));
  }

  Result<> leave(const Leave& leave, std::stop_token stop) override {
    return done(ask(post(leave, "/leave", nullptr), {}, options_.close_patience, stop));
  }

  Result<> close(const Leave& leave, std::stop_token stop) override {
    return done(ask(post(leave, "/close", nullptr), {}, options_.close_patience, stop));
  }

  Result<std::string> submit(const Submission& request, const OnCopied& progress,
                             std::stop_token stop) override {
    const json body = {{"imgid", request.imgid},
                       {"version", request.version},
                       {"grant", request.grant},
                       {"parent", request.parent},
                       {"cmdid", request.cmdid}};
    auto answer = ask(post(request.leave, "/submit", body), progress, options_.patience, stop);
    if (!answer) return fail(answer.error());
    const auto receipt = answer->find("receipt");
    if (receipt != answer->end() && receipt->is_string()) return receipt->get<std::string>();
    return fail(ErrorCode::corrupt, "the cc's answer to a submit has no receipt", "receipt");
  }

  Result<> fetch(const Held& held, std::uint64_t data_bytes, const OnCopied& progress,
                 std::stop_token stop) override {
    return transfer(held, options_.patience).fetch(held.file, data_bytes, progress, stop);
  }

  Result<> give_back(const Held& held, const std::string& give, const OnCopied& progress,
                     std::stop_token stop) override {
    return transfer(held, options_.close_patience).give_back(held.file, give, progress, stop);
  }

  Result<> remove(const Leave& leave, std::stop_token stop) override {
    auto request = post(leave, "", nullptr);
    request.method = "DELETE";
    return done(ask(request, {}, options_.patience, stop));
  }

 private:
  static Result<> done(const Result<json>& answer) { return answer ? Result<>{} : fail(answer.error()); }

  static std::string path_of(const Leave& leave) {
    return "/disks/" + leave.instance.str() + "/" + std::to_string(leave.epoch);
  }

  DiskTransfer transfer(const Held& held, std::chrono::milliseconds patience) const {
    auto client = options_.client;
    client.io_timeout = kBlock;
    return DiskTransfer({.cc = options_.cc,
                         .client = std::move(client),
                         .path = path_of(held.leave),
                         .grant = held.leave.grant,
                         .copy = held.copy,
                         .patience = patience});
  }

  static http::ClientRequest post(const Leave& leave, const std::string& what, const json& body) {
    http::ClientRequest request;
    request.method = "POST";
    request.target = path_of(leave) + what + "?" + leave.grant;
    request.headers["Content-Type"] = "application/json";
    if (!body.is_null()) request.body = body.dump();
    request.repeatable = true;
    return request;
  }

  /// Until it is neither "working" nor busy nor away; `patience`: with nothing moving.
  Result<json> ask(const http::ClientRequest& request, const OnCopied& progress,
                   std::chrono::milliseconds patience, const std::stop_token& stop) const {
    http::Client client(options_.cc, options_.client);
    std::uint64_t moved = 0;
    auto deadline = Clock::now() + patience;
    for (;;) {
      auto sent = client.send(request, stop);
      auto answer = sent ? sent->json() : Result<json>(fail(sent.error()));
      const bool works = sent && sent->status == kAccepted;
      if (answer && !works) return answer;
      if (answer) {
        const auto bytes = number(*answer, "bytes_done");
        if (progress) progress(bytes, number(*answer, "bytes_total"));
        if (bytes > moved) deadline = Clock::now() + patience;
        moved = std::max(moved, bytes);
      } else if (answer.error().code != ErrorCode::unavailable && answer.error().code != ErrorCode::timeout) {
        return answer;
      }
      if (Clock::now() > deadline) return given_up(answer);
      if (!sys::pause(kAgain, stop)) return fail(ErrorCode::cancelled, "interrupted");
    }
  }

  tl::unexpected<Error> given_up(const Result<json>& answer) const {
    const std::string why = answer ? "it gets nowhere" : answer.error().message;
    return fail(ErrorCode::unavailable,
                "the database disk at cc " + options_.cc.authority() + " cannot be reached: " + why +
                    "; check educloud-cc and the network of this node, then try again");
  }

  CcDiskOptions options_;
};

}  // namespace

std::unique_ptr<CcDisks> make_cc_disks(CcDiskOptions options) {
  return std::make_unique<HttpCcDisks>(std::move(options));
}

}  // namespace educloud::nc
