#include "clc/app/passwords.hpp"

#include <crypt.h>
#include <sodium.h>

#include <memory>
#include <semaphore>

#include "common/base/random.hpp"

namespace educloud::clc {
namespace {

// OWASP's smallest argon2id setting: enough against guessing, and small beside the daemon's own memory.
constexpr unsigned long long kPasses = 2;
constexpr std::size_t kMemoryBytes = 19u << 20;

std::counting_semaphore<2> gate{2};

bool ready() {
  static const bool kReady = sodium_init() >= 0;
  return kReady;
}

}  // namespace

Result<std::string> hash_password(std::string_view password) {
  if (!ready()) return fail(ErrorCode::internal, "libsodium does not start");
  char text[crypto_pwhash_STRBYTES];
  gate.acquire();
  const int failed = crypto_pwhash_str_alg(text, password.data(), password.size(), kPasses, kMemoryBytes,
                                           crypto_pwhash_ALG_ARGON2ID13);
  gate.release();
  if (failed != 0) return fail(ErrorCode::exhausted, "no memory to hash a password");
  return std::string(text);
}

bool password_matches(const std::string& hash, std::string_view password) {
  if (!ready()) return false;
  gate.acquire();
  const bool matches = crypto_pwhash_str_verify(hash.c_str(), password.data(), password.size()) == 0;
  gate.release();
  return matches;
}

const std::string& nobodys_hash() {
  static const std::string kHash = hash_password(random_hex(32)).value_or("");
  return kHash;
}

Result<std::string> guest_password_hash(std::string_view password) {
  constexpr unsigned long kRounds = 20'000;
  char setting[CRYPT_GENSALT_OUTPUT_SIZE];
  if (::crypt_gensalt_rn("$6$", kRounds, nullptr, 0, setting, sizeof setting) == nullptr)
    return fail(ErrorCode::internal, "crypt(3) gives no salt for SHA-512");
  const auto data = std::make_unique<crypt_data>();
  gate.acquire();
  const char* hash = ::crypt_rn(std::string(password).c_str(), setting, data.get(), sizeof *data);
  gate.release();
  if (hash == nullptr) return fail(ErrorCode::internal, "crypt(3) cannot hash with SHA-512");
  return std::string(hash);
}

std::string token_hash(std::string_view token) {
  if (!ready()) return {};
  unsigned char digest[32];
  // The token is 256 random bits: a fast hash is enough, there is nothing to guess.
  crypto_generichash(digest, sizeof digest, reinterpret_cast<const unsigned char*>(token.data()),
                     token.size(), nullptr, 0);
  char hex[2 * sizeof digest + 1];
  sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
  return hex;
}

}  // namespace educloud::clc
