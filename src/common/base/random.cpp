#include "common/base/random.hpp"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

namespace educloud {

std::string random_hex(std::size_t byte_count) {
  std::vector<unsigned char> bytes(byte_count);
  std::size_t have = 0;
  while (have < byte_count) {
    const ssize_t got = ::getrandom(bytes.data() + have, byte_count - have, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) std::abort();  // without randomness no secret and no id can be trusted
    have += static_cast<std::size_t>(got);
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * byte_count);
  for (unsigned char byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 0xf];
  }
  return hex;
}

}  // namespace educloud
