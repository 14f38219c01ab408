#include "cli/init/ssh_keys.hpp"

#include <sodium.h>

#include <array>

namespace educloud::cli {
namespace {

constexpr std::string_view kBegin = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
constexpr std::string_view kEnd = "-----END OPENSSH PRIVATE KEY-----";
constexpr std::string_view kType = "ssh-ed25519";
constexpr std::size_t kLine = 70;
constexpr std::size_t kBlock = 8;

void add_number(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xff);
}

void add_text(std::string& out, std::string_view text) {
  add_number(out, static_cast<std::uint32_t>(text.size()));
  out += text;
}

std::string base64(std::string_view data) {
  std::string out(sodium_base64_encoded_len(data.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(data.data()), data.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  out.resize(out.find('\0') == out.npos ? out.size() : out.find('\0'));
  return out;
}

/// What stands before the public key in PROTOCOL.key of OpenSSH: no cipher, no key derivation, one key.
std::string head() {
  std::string out("openssh-key-v1\0", 15);
  add_text(out, "none");
  add_text(out, "none");
  add_text(out, "");
  add_number(out, 1);
  return out;
}

std::string public_blob(std::string_view key) {
  std::string out;
  add_text(out, kType);
  add_text(out, key);
  return out;
}

}  // namespace

std::string make_ssh_key() {
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> open{};
  std::array<unsigned char, crypto_sign_SECRETKEYBYTES> secret{};
  crypto_sign_keypair(open.data(), secret.data());
  const std::string_view open_text(reinterpret_cast<const char*>(open.data()), open.size());
  const std::string_view secret_text(reinterpret_cast<const char*>(secret.data()), secret.size());
  const auto check = randombytes_random();
  std::string inner;
  add_number(inner, check);
  add_number(inner, check);
  add_text(inner, kType);
  add_text(inner, open_text);
  add_text(inner, secret_text);
  add_text(inner, "educloud");
  for (char padding = 1; inner.size() % kBlock != 0; ++padding) inner += padding;
  std::string whole = head();
  add_text(whole, public_blob(open_text));
  add_text(whole, inner);
  const std::string encoded = base64(whole);
  std::string out(kBegin);
  for (std::size_t at = 0; at < encoded.size(); at += kLine) out += encoded.substr(at, kLine) + "\n";
  sodium_memzero(secret.data(), secret.size());
  return out.append(kEnd);
}

Result<std::string> ssh_public_key(const std::string& private_key) {
  const auto broken = [] { return fail(ErrorCode::corrupt, "not a key that init made"); };
  const auto begin = private_key.find(kBegin), end = private_key.find(kEnd);
  if (begin == private_key.npos || end == private_key.npos) return broken();
  const auto text = private_key.substr(begin + kBegin.size(), end - begin - kBegin.size());
  std::string whole(text.size(), '\0');
  std::size_t size = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(whole.data()), whole.size(), text.data(),
                        text.size(), "\n", &size, nullptr, sodium_base64_VARIANT_ORIGINAL) != 0)
    return broken();
  whole.resize(size);
  const std::string before = head();
  const std::size_t blob_size = public_blob(std::string(crypto_sign_PUBLICKEYBYTES, '\0')).size();
  if (!whole.starts_with(before) || whole.size() < before.size() + 4 + blob_size) return broken();
  const auto blob = whole.substr(before.size() + 4, blob_size);
  const auto key = std::string_view(blob).substr(blob_size - crypto_sign_PUBLICKEYBYTES);
  if (blob != public_blob(key)) return broken();
  return std::string(kType) + " " + base64(blob);
}

}  // namespace educloud::cli
