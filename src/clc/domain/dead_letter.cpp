#include "clc/domain/dead_letter.hpp"

#include <array>

#include "common/base/ids.hpp"
#include "common/base/limits.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/task_status.hpp"

namespace educloud::clc {
namespace {

constexpr std::string_view kOwnQueue = "clc_status_queue";

/// Who reads `queue`, for "is ... up".
std::string reader_of(std::string_view queue) {
  const auto host = [&](std::string_view prefix) { return std::string(queue.substr(prefix.size())); };
  if (queue.starts_with("nc_cmd_queue.")) return "nc on " + host("nc_cmd_queue.");
  if (queue.starts_with("cc_cmd_queue.")) return "cc on " + host("cc_cmd_queue.");
  if (queue == "walrus_cmd_queue") return "walrus";
  if (queue == "cc_status_queue" || queue == "cc_heartbeat_queue") return "cc";
  if (queue == kOwnQueue || queue == "clc_heartbeat_queue") return "clc";
  return "its reader";
}

/// What is wrong with the body itself; empty: nothing that can be seen without knowing more.
std::string fault_of(const DeadLetter& letter) {
  std::string tid;
  switch (kind_of_queue(letter.queue)) {
    case LetterKind::command: {
      const auto command = msg::parse<msg::Command>(letter.body);
      if (!command) return command.error().message;
      tid = command->tid;
      break;
    }
    case LetterKind::status: {
      const auto status = msg::parse<msg::TaskStatus>(letter.body);
      if (!status) return status.error().message;
      tid = status->tid;
      break;
    }
    case LetterKind::heartbeat: {
      const auto json = msg::parse_json(letter.body);
      return json ? "" : json.error().message;
    }
    case LetterKind::other: return "";
  }
  const auto id = TaskId::parse(tid);
  if (!id) return id.error().message;
  return letter.sender.empty() ? "it was sent without a user id" : "";
}

void hide(nlohmann::json& json) {
  static constexpr std::array kSecret{"display_password", "password_hash", "source_grant", "target_grant",
                                      "database_grant"};
  if (!json.is_structured()) return;
  for (auto& [key, value] : json.items()) {
    if (json.is_object() && std::find(kSecret.begin(), kSecret.end(), key) != kSecret.end()) {
      value = "(hidden)";
    } else {
      hide(value);
    }
  }
}

}  // namespace

std::string_view to_string(LetterKind kind) {
  switch (kind) {
    case LetterKind::command: return "command";
    case LetterKind::status: return "status";
    case LetterKind::heartbeat: return "heartbeat";
    case LetterKind::other: return "other";
  }
  return "other";
}

LetterKind kind_of_queue(std::string_view queue) {
  if (queue.starts_with("nc_cmd_queue.") || queue.starts_with("cc_cmd_queue.") || queue == "walrus_cmd_queue")
    return LetterKind::command;
  if (queue == "cc_status_queue" || queue == kOwnQueue) return LetterKind::status;
  if (queue == "cc_heartbeat_queue" || queue == "clc_heartbeat_queue") return LetterKind::heartbeat;
  return LetterKind::other;
}

std::string cause_of(const DeadLetter& letter, std::uint64_t sent_bytes) {
  const std::string who = reader_of(letter.queue);
  if (letter.reason == "expired") {
    return "nobody took it from " + letter.queue + " before its deadline: is " + who +
           " up, and does it reach the broker?";
  }
  if (letter.reason == "maxlen") return letter.queue + " was full: is " + who + " up?";
  if (sent_bytes > limits::kMessageBytes) {
    return "it is too large: " + std::to_string(sent_bytes) + " bytes, at most " +
           std::to_string(limits::kMessageBytes) + " are read; its beginning is kept";
  }
  const std::string fault = fault_of(letter);
  if (!fault.empty()) return fault;
  if (letter.reason == "delivery_limit") {
    return who + " took it and gave it back until the broker had enough: its log says why";
  }
  if (letter.reason.empty()) return "nobody says where it was refused";
  return "refused by " + who + ", though it is well-formed: its log says why";
}

Result<msg::Command> command_to_retry(const DeadLetter& letter) {
  auto command = msg::parse<msg::Command>(letter.body);
  if (!command) {
    return fail(ErrorCode::conflict, "dead letter " + std::to_string(letter.id) +
                                         " is no command that can be read (" + command.error().message +
                                         "): drop it");
  }
  return command;
}

Result<> check_status_to_retry(const DeadLetter& letter) {
  if (letter.queue == kOwnQueue) return {};
  return fail(ErrorCode::conflict, "dead letter " + std::to_string(letter.id) + " was refused in " +
                                       (letter.queue.empty() ? "an unknown queue" : letter.queue) +
                                       ": only commands, and statuses refused by clc, can be retried. Its "
                                       "sender repeats what still matters; drop it");
}

std::string readable_body(const DeadLetter& letter) {
  auto json = msg::parse_json(letter.body);
  if (json) {
    hide(*json);
    return json->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  std::string out = letter.body;
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte >= 0x7f) c = '?';
  }
  return out;
}

}  // namespace educloud::clc
