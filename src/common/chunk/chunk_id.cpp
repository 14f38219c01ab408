#include "common/chunk/chunk_id.hpp"

#include <openssl/evp.h>

#include <cstdlib>

namespace educloud::chunk {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { ::EVP_MD_CTX_free(context); }
};

void require(bool ok) {
  // SHA-256 of memory fails only if OpenSSL is broken (no provider): nothing could go on.
  if (!ok) std::abort();
}

/// EVP_sha256() makes OpenSSL 3 look the algorithm up at each use; fetched once it does not. Never freed: it
/// may be used by a thread that ends after main().
const EVP_MD* sha256() {
  static const EVP_MD* const kAlgorithm = ::EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return kAlgorithm;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

tl::unexpected<Error> bad_ids(const std::string& why) {
  return fail(ErrorCode::invalid_argument, "list of chunk ids refused: " + why);
}

}  // namespace

std::string ChunkId::hex() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(kBytes * 2, '0');
  for (std::size_t i = 0; i < kBytes; ++i) {
    text[2 * i] = kDigits[bytes[i] >> 4];
    text[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return text;
}

Result<ChunkId> ChunkId::parse(std::string_view hex) {
  ChunkId id;
  bool good = hex.size() == kBytes * 2;
  for (std::size_t i = 0; good && i < kBytes; ++i) {
    const int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    if (good) id.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  // The text may come from anywhere: it is not repeated.
  if (!good)
    return fail(ErrorCode::invalid_argument, "a chunk id is 64 lower-case hex digits, this text (" +
                                                 std::to_string(hex.size()) + " characters) is not");
  return id;
}

ChunkId ChunkId::of(std::span<const char> data) {
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(::EVP_MD_CTX_new());
  ChunkId id;
  require(context != nullptr && sha256() != nullptr);
  require(::EVP_DigestInit_ex2(context.get(), sha256(), nullptr) == 1);
  require(::EVP_DigestUpdate(context.get(), data.data(), data.size()) == 1);
  require(::EVP_DigestFinal_ex(context.get(), id.bytes.data(), nullptr) == 1);
  return id;
}

std::string encode_ids(std::span<const ChunkId> ids) {
  static_assert(sizeof(ChunkId) == ChunkId::kBytes, "ids lie one after the other");
  return {reinterpret_cast<const char*>(ids.data()), ids.size_bytes()};
}

Result<std::vector<ChunkId>> decode_ids(std::string_view text, std::size_t max) {
  if (text.size() % ChunkId::kBytes != 0) {
    return bad_ids(std::to_string(text.size()) + " bytes are no multiple of 32");
  }
  const auto count = text.size() / ChunkId::kBytes;
  if (count > max) return bad_ids(std::to_string(count) + " ids, the limit is " + std::to_string(max));
  std::vector<ChunkId> ids(count);
  if (count != 0) std::memcpy(ids.data(), text.data(), text.size());
  for (std::size_t i = 0; i < count; ++i) {
    if (ids[i].is_hole())
      return bad_ids("number " + std::to_string(i) + " is all zeros, which names no chunk");
  }
  return ids;
}

}  // namespace educloud::chunk
