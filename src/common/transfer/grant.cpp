#include "common/transfer/grant.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <charconv>
#include <cstdlib>

#include "common/base/ids.hpp"
#include "common/sys/file.hpp"

namespace educloud::transfer {
namespace {

constexpr std::size_t kKeyDigits = 64;

bool is_hex(std::string_view text, std::size_t digits) {
  if (text.size() != digits) return false;
  for (char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

std::string signed_text(const Grant& grant) {
  return grant.method + "\n" + grant.path + "\n" + grant.node + "\n" + std::to_string(grant.expires_s);
}

std::string_view part(const std::map<std::string, std::string>& query, const std::string& key) {
  const auto at = query.find(key);
  return at == query.end() ? std::string_view{} : std::string_view{at->second};
}

}  // namespace

std::string hmac_hex(std::string_view key, std::string_view text) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  const auto* data = reinterpret_cast<const unsigned char*>(text.data());
  if (HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data, text.size(), mac, &size) ==
      nullptr) {
    std::abort();  // without a MAC nothing may be signed or believed
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * size);
  for (unsigned int i = 0; i < size; ++i) {
    hex += kDigits[mac[i] >> 4];
    hex += kDigits[mac[i] & 0xf];
  }
  return hex;
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string sign_grant(std::string_view key, const Grant& grant) {
  return "node=" + grant.node + "&expires=" + std::to_string(grant.expires_s) +
         "&sig=" + hmac_hex(key, signed_text(grant));
}

Result<std::string> verify_grant(std::string_view key, std::string_view method, std::string_view path,
                                 const std::map<std::string, std::string>& query, std::int64_t now_s) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorCode::permission_denied,
                "the grant for " + std::string(path.substr(0, 120)) + " is not valid: " + std::string(why));
  };
  // Without a key every signature could be forged with the empty one.
  if (key.size() != kKeyDigits) return fail(ErrorCode::internal, "no key to check grants with");
  const std::string_view node = part(query, "node");
  const std::string_view expires = part(query, "expires");
  const std::string_view signature = part(query, "sig");
  if (node.empty() || expires.empty() || signature.empty()) return refuse("node, expires or sig is missing");
  if (!HostName::parse(node) || !is_hex(signature, kKeyDigits)) return refuse("node or sig is malformed");
  Grant grant{method == "HEAD" ? "GET" : std::string(method), std::string(path), std::string(node), 0};
  const auto [end, errc] = std::from_chars(expires.data(), expires.data() + expires.size(), grant.expires_s);
  if (errc != std::errc{} || end != expires.data() + expires.size() || grant.expires_s < 0) {
    return refuse("expires is not a time");
  }
  if (!equal_constant_time(signature, hmac_hex(key, signed_text(grant)))) {
    return refuse("it was made for another request, host or cloud");
  }
  if (now_s >= grant.expires_s) {
    return refuse("it ended " + std::to_string(now_s - grant.expires_s) +
                  " s ago; begin the task again, and compare the "
                  "clocks of the hosts");
  }
  return grant.node;
}

std::string derive_node_key(std::string_view data_key, std::string_view host) {
  return hmac_hex(data_key, "node:" + std::string(host));
}

Result<std::string> load_key(const std::filesystem::path& path) {
  auto text = sys::read_secret_file(path);
  if (!text) return fail(text.error());
  if (!is_hex(*text, kKeyDigits)) {
    return fail(ErrorCode::invalid_argument, path.string() + ": not a key (64 lower-case hex digits)");
  }
  return text;
}

std::string version_path(std::string_view imgid, int version) {
  return "/images/" + std::string(imgid) + "/versions/" + std::to_string(version);
}

}  // namespace educloud::transfer
