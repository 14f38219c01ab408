#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.hpp"
#include "common/msg/command.hpp"

namespace educloud::clc {

/// A message that could not be delivered or that its reader refused.
struct DeadLetter {
  std::int64_t id = 0;
  std::int64_t at = 0;   ///< unix milliseconds: when clc took it in
  std::string queue;     ///< where it died, as the broker says; a hostile host may have written it
  std::string reason;    ///< the broker's: rejected | expired | delivery_limit | maxlen
  std::string cause;     ///< what clc makes of it, for a person
  std::string exchange;  ///< it was sent to
  std::string routing_key;
  std::string sender;      ///< user id, verified by the broker; empty: it named none
  std::string body;        ///< as it came; of long or old ones the beginning
  std::int64_t bytes = 0;  ///< of `body`
  std::int64_t retried_at = 0;
};

/// What its reader would read it as.
enum class LetterKind { command, status, heartbeat, other };
std::string_view to_string(LetterKind kind);
LetterKind kind_of_queue(std::string_view queue);

/// Why it died. `sent_bytes`: of the whole body, of which `letter.body` may be the beginning.
std::string cause_of(const DeadLetter& letter, std::uint64_t sent_bytes);

/// The command in it. Errors: conflict, saying why it cannot be sent again.
Result<msg::Command> command_to_retry(const DeadLetter& letter);
/// Errors: conflict if it is no status that clc itself refused.
Result<> check_status_to_retry(const DeadLetter& letter);

/// The body for a person to read: without passwords and grants, and without bytes that are no text.
std::string readable_body(const DeadLetter& letter);

}  // namespace educloud::clc
