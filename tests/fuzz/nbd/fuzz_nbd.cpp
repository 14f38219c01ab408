#include <cstdint>
#include <cstdlib>
#include <string>

#include "nc/cache/nbd_export_protocol.hpp"

namespace {

using namespace educloud::nc;

constexpr std::uint64_t kDiskBytes = 10'000'000;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_option(std::string_view text) {
  if (text.size() < nbd::kOptionHeaderBytes) return;
  const auto header = nbd::decode_option(std::span<const char, nbd::kOptionHeaderBytes>(text.data(), 16));
  if (!header) return;
  require(header->length <= nbd::kMaxOptionBytes);
  const auto data = text.substr(16);
  for (const bool no_zeroes : {false, true}) {
    const auto answer = nbd::answer_option(header->option, data, kDiskBytes, {no_zeroes});
    require(answer.out.size() < 400);
    require(answer.next == nbd::Next::close || !answer.out.empty());
  }
}

void check_request(std::string_view text) {
  if (text.size() < nbd::kRequestBytes) return;
  const auto request = nbd::decode_request(std::span<const char, nbd::kRequestBytes>(text.data(), 28));
  if (!request || nbd::check_request(*request, kDiskBytes) != nbd::Errno::none) return;
  require(request->length <= nbd::kMaxRequestBytes);
  require(request->offset <= kDiskBytes && request->length <= kDiskBytes - request->offset);
}

}  // namespace

/// The first byte chooses the message; its magic is put in front, or the fuzzer would guess it for ever.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  if (length == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, length - 1);
  if (data[0] % 3 == 0) check_option("IHAVEOPT" + text);
  if (data[0] % 3 == 1) check_request("\x25\x60\x95\x13" + text);
  if (data[0] % 3 == 2 && text.size() >= 4) {
    (void)nbd::decode_client_flags(std::span<const char, 4>(text.data(), 4));
  }
  check_option(text);
  check_request(text);
  return 0;
}
