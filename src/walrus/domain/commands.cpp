#include "walrus/domain/commands.hpp"

#include "common/base/ids.hpp"

namespace educloud::walrus {
namespace {

std::optional<Operation> parse_operation(std::string_view op) {
  if (op == "image/import") return Operation::import;
  if (op == "image/blank") return Operation::blank;
  if (op == "image/use") return Operation::use;
  if (op == "image/prune") return Operation::prune;
  if (op == "image/delete") return Operation::remove;
  if (op == "task/delete") return Operation::forget;
  return std::nullopt;
}

/// Room for a file system.
constexpr std::int64_t kSmallestBlank = 16 << 20;

std::string name_of(std::string_view imgid, int version) {
  return "image " + std::string(imgid) + " version " + std::to_string(version);
}

}  // namespace

std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::import: return "import";
    case Operation::blank: return "blank";
    case Operation::use: return "use";
    case Operation::prune: return "prune";
    case Operation::remove: return "remove";
    case Operation::forget: return "forget";
  }
  return "forget";
}

Result<> check_addressable(const msg::Command& command) {
  if (auto tid = TaskId::parse(command.tid); !tid)
    return fail(ErrorCode::invalid_argument, tid.error().message, "tid");
  if (auto id = CommandId::parse(command.cmdid); !id) {
    return fail(ErrorCode::invalid_argument, id.error().message, "cmdid");
  }
  return {};
}

Result<Order> check_command(const msg::Command& command) {
  if (auto ok = check_addressable(command); !ok) return fail(ok.error());
  const auto operation = parse_operation(command.op);
  if (!operation) {
    return fail(ErrorCode::invalid_argument, command.op + " is not for walrus but for a node", "op");
  }
  Order order{*operation,       command.tid,       command.cmdid, {}, command.target_version,
              command.versions, command.disk_bytes};
  if (*operation == Operation::forget) {
    order.imgid = TaskId::parse(command.tid)->target.str();
    return order;
  }
  auto imgid = ImageId::parse(command.target_imgid);
  if (!imgid) return fail(ErrorCode::invalid_argument, imgid.error().message, "target_imgid");
  order.imgid = imgid->str();
  const bool needs_version =
      *operation == Operation::import || *operation == Operation::blank || *operation == Operation::use;
  if (needs_version && order.version < 1) {
    return fail(ErrorCode::invalid_argument, "target_version must be a number from 1", "target_version");
  }
  if (*operation == Operation::blank && (order.disk_bytes < kSmallestBlank || order.disk_bytes % 512 != 0)) {
    return fail(ErrorCode::invalid_argument,
                "disk_bytes must be at least " + std::to_string(kSmallestBlank) + " and a multiple of 512",
                "disk_bytes");
  }
  if (*operation == Operation::prune) {
    if (order.versions.empty())
      return fail(ErrorCode::invalid_argument, "versions names none to remove", "versions");
    for (int version : order.versions) {
      if (version < 1)
        return fail(ErrorCode::invalid_argument, "versions must be numbers from 1", "versions");
    }
  }
  return order;
}

Result<> check_prune(const Order& order, std::optional<int> current) {
  for (int version : order.versions) {
    if (version == current) {
      return fail(ErrorCode::conflict,
                  name_of(order.imgid, version) +
                      " is the one in use, so nothing was removed; roll back to another one first",
                  "versions");
    }
  }
  return {};
}

Result<std::string> admit(const Request& request, const Place& place) {
  const std::string name = name_of(request.imgid, request.version);
  if (!request.by_user) {
    return fail(ErrorCode::permission_denied,
                "only users upload files; a host submits the chunks of " + name);
  }
  if (place.published_digest) {
    return fail(ErrorCode::conflict, name + " is published already (digest " + *place.published_digest + ")");
  }
  if (!place.expected_cmdid && place.is_over) {
    return fail(ErrorCode::conflict,
                "no upload of " + name + " is expected any more; begin an import to get a new address");
  }
  if (!place.expected_cmdid) {
    return fail(ErrorCode::unavailable, "walrus has not heard of the import of " + name +
                                            " yet: try again in a moment; if it stays so, check the broker");
  }
  if (!request.cmdid.empty() && request.cmdid != *place.expected_cmdid) {
    return fail(ErrorCode::conflict, "the import of " + name + " was begun again; use the new address",
                "cmdid");
  }
  return *place.expected_cmdid;
}

}  // namespace educloud::walrus
