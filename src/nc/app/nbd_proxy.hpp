#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "common/base/result.hpp"

namespace educloud::nc {

/// qemu-nbd between a guest's QEMU and our export, in a process that outlives ours: while we restart it holds
/// the guest's requests back and asks again, for up to an hour. (libvirt before 9.1 cannot tell QEMU itself
/// to do so.) It ends by itself when its one client, the guest, is gone.
///
/// Blocks until it listens at `socket`; a stale one is replaced. `upstream`: the socket of our export, which
/// must be there. `group`: whose members may connect to `socket`. Its pid is in `<socket>.pid`.
/// Errors: not_found (qemu-nbd is not installed), internal, timeout.
Result<> start_nbd_proxy(const std::filesystem::path& upstream, const std::filesystem::path& socket,
                         std::optional<unsigned> group);
/// A disk of the cc, over TLS with a pre-shared key.
struct NbdDisk {
  std::string host;  ///< IPv4 or IPv6 literal
  int port = 0;
  std::string name;  ///< the export's
  std::string user;
  bool operator==(const NbdDisk&) const = default;
};
/// The same for a database disk, until it is ended: it holds back what a guest asks for as long as a day.
/// `key`: kept below `keys` in a file of mode 0600.
Result<> start_nbd_disk(const NbdDisk& disk, const std::string& key, const std::filesystem::path& keys,
                        const std::filesystem::path& socket, std::optional<unsigned> group);
/// True if the one that was started for `socket` still runs.
bool is_nbd_proxy_up(const std::filesystem::path& socket);
/// Ends it, if the guest that it waits for never came, and removes its files. Not there: nothing happens.
void end_nbd_proxy(const std::filesystem::path& socket);

}  // namespace educloud::nc
