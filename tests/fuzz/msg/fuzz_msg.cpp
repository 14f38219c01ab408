// Every message parser on arbitrary bytes. What one accepts must survive a round trip unchanged.
#include <cstdlib>

#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/task_status.hpp"

namespace {

namespace msg = educloud::msg;

template <class T>
void parse_and_return(std::string_view text) {
  const auto first = msg::parse<T>(text);
  if (!first) {
    if (first.error().message.size() > 1000) std::abort();
    return;
  }
  const auto wire = msg::serialize(*first);
  const auto second = msg::parse<T>(wire);
  // The serialised form may only be refused for being longer than a message may be.
  if (!second && wire.size() <= educloud::limits::kMessageBytes) std::abort();
  if (second && msg::serialize(*second) != wire) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  parse_and_return<msg::Command>(text);
  parse_and_return<msg::TaskStatus>(text);
  parse_and_return<msg::NodeStatus>(text);
  parse_and_return<msg::CcStatus>(text);
  return 0;
}
