#pragma once

#include <memory>
#include <string>

#include "clc/app/engine.hpp"
#include "clc/domain/dead_letter.hpp"
#include "clc/store/store.hpp"
#include "common/bus/bus.hpp"

namespace educloud::clc {

/// Consumes `clc_status_queue`: each status that counts moves its task in one transaction with the
/// message's id and the next command; only then is it acked. What does not count is counted and acked,
/// what cannot be read is rejected to the dead letters.
class StatusConsumer {
 public:
  StatusConsumer(store::Store& store, Engine& engine, const Clock& clock)
      : store_(store), engine_(engine), clock_(clock) {}

  /// `bus` must be stopped before this object goes.
  void subscribe(bus::Bus& bus);
  void take(bus::Delivery delivery);

  /// A status that was refused once, judged again as if it came now. Returns what it is: "accept" if it
  /// counted. Errors: conflict if it cannot be read now either; what Engine says.
  Result<std::string> retry(store::Sql& sql, const DeadLetter& letter);

 private:
  Result<> heed_boot(store::Sql& sql, const msg::TaskStatus& status, const std::string& sender);
  Result<std::string> consume(store::Sql& sql, const msg::TaskStatus& status, const std::string& sender);

  store::Store& store_;
  Engine& engine_;
  const Clock& clock_;
};

}  // namespace educloud::clc
