#include "common/transfer/priority.hpp"

#include <string>

namespace educloud::transfer {

std::string_view to_string(Priority priority) {
  switch (priority) {
    case Priority::user: return "user";
    case Priority::prefetch: return "prefetch";
    case Priority::replication: return "replication";
  }
  return "user";
}

Result<Priority> parse_priority(std::string_view text) {
  for (const Priority priority : {Priority::user, Priority::prefetch, Priority::replication}) {
    if (text == to_string(priority)) return priority;
  }
  return fail(ErrorCode::invalid_argument,
              "the priority is not user, prefetch or replication: '" + std::string(text.substr(0, 40)) + "'",
              "Educloud-Priority");
}

}  // namespace educloud::transfer
