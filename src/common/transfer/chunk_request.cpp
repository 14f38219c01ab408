#include "common/transfer/chunk_request.hpp"

#include <atomic>
#include <charconv>

#include "common/base/ids.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::transfer {
namespace {

constexpr int kMaxVersion = 1'000'000'000;

Result<int> parse_version(std::string_view text) {
  int version = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (errc != std::errc{} || end != text.data() + text.size() || version < 1 || version > kMaxVersion ||
      std::to_string(version) != text) {
    return fail(ErrorCode::invalid_argument, "version must be a number from 1", "version");
  }
  return version;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

Result<ChunkCaller> check_caller(const http::Request& request, std::string_view method, std::string_view key,
                                 std::int64_t now_s) {
  auto imgid = ImageId::parse(request.param("id"));
  if (!imgid) return fail(imgid.error());
  auto version = parse_version(request.param("version"));
  if (!version) return fail(version.error());
  auto node = verify_grant(key, method, version_path(imgid->str(), *version), request.query, now_s);
  if (!node) return fail(node.error());
  static std::atomic<std::uint64_t> last_request{0};
  ChunkCaller caller{imgid->str(), *version, *node, Priority::user, ++last_request};
  if (const auto text = request.header("Educloud-Priority"); !text.empty()) {
    auto priority = parse_priority(text);
    if (!priority) return fail(priority.error());
    caller.priority = *priority;
  }
  return caller;
}

Result<ChunkSink::Publish> read_publish(const http::Request& request) {
  ChunkSink::Publish out;
  out.parent = request.header("Educloud-Parent");
  out.cmdid = request.header("Educloud-Cmdid");
  if (auto ok = check_parent(out.parent); !ok) return fail(ok.error());
  if (!out.cmdid.empty()) {
    if (auto id = CommandId::parse(out.cmdid); !id) return fail(id.error());
  }
  std::string_view match = request.header("If-Match");
  if (match.empty() || match == "*") return out;
  if (match.size() < 2 || !match.starts_with('"') || !match.ends_with('"')) {
    return fail(ErrorCode::invalid_argument, "If-Match must be \"<imgid>/<version>\", in quotes", "If-Match");
  }
  match = match.substr(1, match.size() - 2);
  if (match.empty()) {
    return fail(ErrorCode::invalid_argument, "If-Match names no version", "If-Match");
  }
  if (auto ok = check_parent(match); !ok) {
    return fail(ErrorCode::invalid_argument, "If-Match must be \"<imgid>/<version>\", in quotes", "If-Match");
  }
  out.if_current = match;
  return out;
}

std::string encode_bitmap(const std::vector<bool>& bits) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::vector<unsigned> bytes((bits.size() + 7) / 8, 0);
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) bytes[i / 8] |= 1u << (i % 8);
  }
  std::string hex;
  hex.reserve(2 * bytes.size());
  for (const unsigned byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 0xf];
  }
  return hex;
}

Result<std::vector<bool>> decode_bitmap(std::string_view hex, std::size_t count) {
  const std::size_t bytes = (count + 7) / 8;
  const auto bad = [] { return fail(ErrorCode::corrupt, "the bitmap of missing chunks is malformed"); };
  if (hex.size() != 2 * bytes) return bad();
  std::vector<bool> bits(count);
  for (std::size_t i = 0; i < 8 * bytes; ++i) {
    const int high = hex_value(hex[i / 8 * 2]);
    const int low = hex_value(hex[i / 8 * 2 + 1]);
    if (high < 0 || low < 0) return bad();
    const bool bit = ((high * 16 + low) >> (i % 8) & 1) != 0;
    if (i >= count && bit) return bad();
    if (i < count) bits[i] = bit;
  }
  return bits;
}

}  // namespace educloud::transfer
