#include "common/image/digest.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "common/image/data_runs.hpp"
#include "common/sys/file.hpp"

namespace educloud::image {
namespace {

constexpr std::size_t kBufferBytes = 1 << 20;

void require(int ok) {
  // SHA-256 of memory fails only if OpenSSL is broken (no provider): nothing could go on.
  if (ok != 1) std::abort();
}

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const {
  ::EVP_MD_CTX_free(context);
}

Sha256::Sha256() : context_(::EVP_MD_CTX_new()) {
  require(context_ != nullptr ? 1 : 0);
  require(::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr));
}

void Sha256::update(std::string_view data) {
  require(::EVP_DigestUpdate(context_.get(), data.data(), data.size()));
}

void Sha256::update_zeros(std::uint64_t count) {
  static const std::string zeros(kBufferBytes, '\0');
  while (count > 0) {
    const auto piece = std::min<std::uint64_t>(count, zeros.size());
    update(std::string_view(zeros).substr(0, piece));
    count -= piece;
  }
}

std::string Sha256::finish() {
  std::array<unsigned char, 32> raw{};
  unsigned length = 0;
  require(::EVP_DigestFinal_ex(context_.get(), raw.data(), &length));
  require(::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr));
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text;
  text.reserve(64);
  for (const unsigned char byte : raw) {
    text.push_back(kHex[byte >> 4]);
    text.push_back(kHex[byte & 15]);
  }
  return text;
}

Result<std::string> sha256_file(const std::filesystem::path& path, const OnBytes& on_bytes,
                                std::stop_token stop) {
  auto fd = sys::open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + path.string(), errno));
  const auto size = static_cast<std::uint64_t>(info.st_size);
  ::posix_fadvise(fd->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 hash;
  ProgressMeter meter(on_bytes, size);
  std::string buffer(kBufferBytes, '\0');
  std::uint64_t done = 0;
  // Zeros in steps too: hashing a 1 TiB hole takes minutes, and must stop when asked.
  const auto skip_to = [&](std::uint64_t end) -> Result<> {
    while (done < end) {
      if (stop.stop_requested())
        return fail(ErrorCode::cancelled, "hashing " + path.string() + " was cancelled");
      const auto step = std::min<std::uint64_t>(end - done, kBufferBytes);
      hash.update_zeros(step);
      done += step;
      meter.at(done);
    }
    return {};
  };
  const auto read_run = [&](std::uint64_t offset, std::uint64_t length) -> Result<> {
    if (auto skipped = skip_to(offset); !skipped) return skipped;
    while (length > 0) {
      if (stop.stop_requested())
        return fail(ErrorCode::cancelled, "hashing " + path.string() + " was cancelled");
      const auto want = std::min<std::uint64_t>(length, buffer.size());
      const ssize_t got = ::pread(fd->get(), buffer.data(), want, static_cast<off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(errno_error("read " + path.string(), errno));
      if (got == 0) return fail(ErrorCode::corrupt, path.string() + " became shorter while it was read");
      hash.update(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
      done += static_cast<std::uint64_t>(got);
      length -= static_cast<std::uint64_t>(got);
      meter.at(done);
    }
    return {};
  };
  if (auto ok = for_each_data_run(fd->get(), size, read_run); !ok) return fail(ok.error());
  if (auto skipped = skip_to(size); !skipped) return fail(skipped.error());
  return hash.finish();
}

bool is_sha256_hex(std::string_view text) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == 64 && std::all_of(text.begin(), text.end(), hex);
}

}  // namespace educloud::image
