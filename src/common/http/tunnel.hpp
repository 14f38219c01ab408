#pragma once

#include <boost/asio/awaitable.hpp>

#include <memory>
#include <string>

#include "common/http/transport.hpp"

namespace educloud::http {

/// Carries bytes both ways between a connection that has been upgraded and `fd`, a connected UNIX socket that
/// is taken over, until either side ends; both are closed then. `first`: what the connection said already. A
/// peer that has vanished is noticed within some 15 s.
net::awaitable<void> carry(std::shared_ptr<Transport> transport, int fd, std::string first);

}  // namespace educloud::http
