#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace educloud {

class Clock;

/// `byte_count` bytes of getrandom(2) as 2 x byte_count lower-case hex digits. Fit for secrets.
std::string random_hex(std::size_t byte_count);

/// Unix milliseconds for ids that begin with their time.
std::int64_t id_time_ms();

/// For the simulator, which must be able to repeat a run exactly: while it lives, random_hex on its thread
/// comes from `seed` and id_time_ms from `clock`. Nothing that guards anything may run meanwhile; tests/lint
/// sees to it that no daemon names this class.
class RepeatableRandom {
 public:
  RepeatableRandom(std::uint64_t seed, const Clock& clock);
  ~RepeatableRandom();
  RepeatableRandom(const RepeatableRandom&) = delete;
  RepeatableRandom& operator=(const RepeatableRandom&) = delete;

 private:
  friend std::string random_hex(std::size_t byte_count);
  friend std::int64_t id_time_ms();
  std::uint64_t state_;
  const Clock& clock_;
};

}  // namespace educloud
