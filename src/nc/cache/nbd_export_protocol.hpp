#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

// Private to nc/cache: the bytes of the NBD protocol
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), as far as a read-only server needs
// them. Pure: no sockets. Numbers on the wire are big endian.
namespace educloud::nc::nbd {

inline constexpr std::uint32_t kMaxOptionBytes = 8192;        ///< a name has at most 4096
inline constexpr std::uint32_t kMaxRequestBytes = 32u << 20;  ///< what clients may assume without asking
inline constexpr std::size_t kOptionHeaderBytes = 16;
inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kReplyBytes = 16;
inline constexpr std::uint16_t kTransmissionFlags =
    0x01 | 0x02 | 0x100;  ///< HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN

/// What the server says first.
std::string greeting();

struct ClientFlags {
  bool no_zeroes = false;
};
/// The client's answer, 4 bytes. Errors: corrupt (not newstyle fixed, flags we did not offer).
Result<ClientFlags> decode_client_flags(std::span<const char, 4> data);

struct OptionHeader {
  std::uint32_t option = 0;
  std::uint32_t length = 0;
};
/// Errors: corrupt (magic), too_large (more than kMaxOptionBytes).
Result<OptionHeader> decode_option(std::span<const char, kOptionHeaderBytes> data);

enum class Next { negotiate, transmit, close };
struct OptionAnswer {
  std::string out;  ///< to send, may be empty
  Next next = Next::negotiate;
};
/// `data`: as long as the header said.
OptionAnswer answer_option(std::uint32_t option, std::string_view data, std::uint64_t disk_bytes,
                           ClientFlags flags);

enum class Command : std::uint16_t { read = 0, write = 1, disconnect = 2 };
struct Request {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;  ///< maybe none of Command
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};
/// Errors: corrupt (magic).
Result<Request> decode_request(std::span<const char, kRequestBytes> data);

/// On the wire; the protocol's own numbers.
enum class Errno : std::uint32_t { none = 0, eperm = 1, eio = 5, einval = 22, eshutdown = 108 };
/// Whether the request may be carried out; `none` only for a read inside the disk.
Errno check_request(const Request& request, std::uint64_t disk_bytes);

/// Simple reply; after it come the bytes of a read that succeeded.
std::array<char, kReplyBytes> encode_reply(std::uint64_t cookie, Errno error);

}  // namespace educloud::nc::nbd
