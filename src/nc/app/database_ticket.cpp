#include "nc/app/database_ticket.hpp"

#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr unsigned kSecret = 0600;
constexpr std::size_t kTicketBytes = 4096;

}  // namespace

Result<std::optional<DatabaseTicket>> read_ticket(const Layout& layout, const InstanceId& insid) {
  const auto file = layout.database_ticket(insid);
  auto text = sys::read_file(file, kTicketBytes);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  if (!text) return fail(text.error());
  auto ticket = msg::parse<DatabaseTicket>(*text);
  if (!ticket) return fail(ticket.error(), file.string());
  return std::optional(std::move(*ticket));
}

Result<> write_ticket(const Layout& layout, const InstanceId& insid, const DatabaseTicket& ticket) {
  if (auto ok = sys::make_directories(layout.instance(insid)); !ok) return ok;
  return sys::write_file_atomically(layout.database_ticket(insid), msg::serialize(ticket), kSecret);
}

}  // namespace educloud::nc
