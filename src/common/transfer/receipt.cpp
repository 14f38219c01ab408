#include "common/transfer/receipt.hpp"

#include <charconv>
#include <vector>

#include "common/base/ids.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::transfer {
namespace {

// "r1 imgid version digest size virtual format parent|- cmdid|- mac". Blanks cannot occur in any part.
constexpr std::string_view kMagic = "r1";
constexpr std::size_t kParts = 10;
constexpr std::size_t kLongest = 512;

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}
std::string from_dash(std::string_view text) {
  return text == "-" ? std::string{} : std::string(text);
}

template <class T>
bool parse_number(std::string_view text, T& out) {
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), out);
  return errc == std::errc{} && end == text.data() + text.size() && out >= 0;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (parts.size() <= kParts) {
    const auto blank = text.find(' ');
    parts.push_back(text.substr(0, blank));
    if (blank == std::string_view::npos) break;
    text.remove_prefix(blank + 1);
  }
  return parts;
}

}  // namespace

std::string sign_receipt(std::string_view data_key, const Receipt& receipt) {
  const std::string text = std::string(kMagic) + " " + receipt.imgid + " " + std::to_string(receipt.version) +
                           " " + receipt.digest + " " + std::to_string(receipt.size_bytes) + " " +
                           std::to_string(receipt.virtual_size_bytes) + " " + receipt.format + " " +
                           or_dash(receipt.parent) + " " + or_dash(receipt.cmdid);
  // "receipt:" keeps these apart from every other thing the same key signs.
  return text + " " + hmac_hex(data_key, "receipt:" + text);
}

Result<Receipt> verify_receipt(std::string_view data_key, std::string_view text) {
  const auto parts = text.size() <= kLongest ? split(text) : std::vector<std::string_view>{};
  if (parts.size() != kParts || parts[0] != kMagic) {
    return fail(ErrorCode::invalid_argument, "not a receipt of walrus", "receipt");
  }
  const std::string_view mac = parts.back();
  const std::string_view body = text.substr(0, text.size() - mac.size() - 1);
  if (!equal_constant_time(mac, hmac_hex(data_key, "receipt:" + std::string(body)))) {
    return fail(ErrorCode::permission_denied, "the receipt was not signed by walrus of this cloud",
                "receipt");
  }
  Receipt out;
  out.imgid = parts[1];
  out.digest = parts[3];
  out.format = parts[6];
  out.parent = from_dash(parts[7]);
  out.cmdid = from_dash(parts[8]);
  if (!parse_number(parts[2], out.version) || !parse_number(parts[4], out.size_bytes) ||
      !parse_number(parts[5], out.virtual_size_bytes)) {
    return fail(ErrorCode::invalid_argument, "a number in the receipt is malformed", "receipt");
  }
  return out;
}

std::string make_parent(std::string_view imgid, int version) {
  return std::string(imgid) + "/" + std::to_string(version);
}

Result<> check_parent(std::string_view parent) {
  if (parent.empty()) return {};
  const auto slash = parent.find('/');
  int version = 0;
  const bool ok = slash != std::string_view::npos && ImageId::parse(parent.substr(0, slash)).has_value() &&
                  parse_number(parent.substr(slash + 1), version) && version >= 1;
  if (!ok) return fail(ErrorCode::invalid_argument, "parent is not of the form <imgid>/<version>", "parent");
  return {};
}

}  // namespace educloud::transfer
