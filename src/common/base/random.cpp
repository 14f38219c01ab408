#include "common/base/random.hpp"

#include <sys/random.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "common/base/clock.hpp"

namespace educloud {
namespace {

thread_local RepeatableRandom* repeatable = nullptr;

/// splitmix64.
std::uint64_t next_of(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

}  // namespace

std::string random_hex(std::size_t byte_count) {
  std::vector<unsigned char> bytes(byte_count);
  if (repeatable != nullptr) {
    for (auto& byte : bytes) byte = static_cast<unsigned char>(next_of(repeatable->state_) >> 32);
  }
  std::size_t have = repeatable != nullptr ? byte_count : 0;
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

std::int64_t id_time_ms() {
  if (repeatable != nullptr) return repeatable->clock_.wall_ms();
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

RepeatableRandom::RepeatableRandom(std::uint64_t seed, const Clock& clock) : state_(seed), clock_(clock) {
  repeatable = this;
}
RepeatableRandom::~RepeatableRandom() {
  repeatable = nullptr;
}

}  // namespace educloud
