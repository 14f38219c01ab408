#include "nc/cache/nbd_export_protocol.hpp"

#include <concepts>

namespace educloud::nc::nbd {
namespace {

constexpr std::uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kReplyMagic = 0x67446698;

constexpr std::uint16_t kFixedNewstyle = 1, kNoZeroes = 2;  // the same bits in both directions

enum Option : std::uint32_t { kExportName = 1, kAbort = 2, kList = 3, kInfo = 6, kGo = 7 };
enum Reply : std::uint32_t {
  kAck = 1,
  kServer = 2,
  kReplyInfo = 3,
  kErrUnsupported = 0x80000001,
  kErrInvalid = 0x80000003,
  kErrUnknown = 0x80000006,
};
enum Info : std::uint16_t { kInfoExport = 0, kInfoBlockSize = 3 };

constexpr std::string_view kName = "disk";
constexpr std::size_t kZeroes = 124;  // after the answer to kExportName, an error of the first NBD
constexpr std::uint32_t kPreferredBlock = 64 * 1024;

template <std::unsigned_integral T>
void put(std::string& out, T value) {
  for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift & 0xff));
  }
}

template <std::unsigned_integral T>
T get(std::string_view data, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value << 8 | static_cast<unsigned char>(data[at + i]));
  }
  return value;
}

void put_reply(std::string& out, std::uint32_t option, std::uint32_t type, std::string_view data = {}) {
  put(out, kOptionReplyMagic);
  put(out, option);
  put(out, type);
  put(out, static_cast<std::uint32_t>(data.size()));
  out += data;
}

bool is_ours(std::string_view name) {
  return name.empty() || name == kName;
}

/// Both INFO and GO: u32 length of the name, the name, u16 count, count times u16.
OptionAnswer answer_info(std::uint32_t option, std::string_view data, std::uint64_t disk_bytes) {
  OptionAnswer answer;
  const auto refuse = [&](std::uint32_t type, std::string_view why) {
    put_reply(answer.out, option, type, why);
    return answer;
  };
  if (data.size() < 6) return refuse(kErrInvalid, "the request is too short");
  const std::size_t name_length = get<std::uint32_t>(data, 0);
  if (name_length > data.size() - 6) return refuse(kErrInvalid, "the name does not fit");
  const std::string_view name = data.substr(4, name_length);
  const std::string_view wanted = data.substr(4 + name_length + 2);
  const std::size_t count = get<std::uint16_t>(data, 4 + name_length);
  if (wanted.size() != count * 2) return refuse(kErrInvalid, "the list of infos does not fit");
  if (!is_ours(name)) return refuse(kErrUnknown, "the only export is \"disk\"");
  std::string info;
  put(info, std::uint16_t{kInfoExport});
  put(info, disk_bytes);
  put(info, kTransmissionFlags);
  put_reply(answer.out, option, kReplyInfo, info);
  for (std::size_t i = 0; i < count; ++i) {
    if (get<std::uint16_t>(wanted, i * 2) != kInfoBlockSize) continue;
    info.clear();
    put(info, std::uint16_t{kInfoBlockSize});
    put(info, std::uint32_t{1});
    put(info, kPreferredBlock);
    put(info, kMaxRequestBytes);
    put_reply(answer.out, option, kReplyInfo, info);
    break;
  }
  put_reply(answer.out, option, kAck);
  if (option == kGo) answer.next = Next::transmit;
  return answer;
}

}  // namespace

std::string greeting() {
  std::string out;
  put(out, kMagic);
  put(out, kOptionMagic);
  put(out, static_cast<std::uint16_t>(kFixedNewstyle | kNoZeroes));
  return out;
}

Result<ClientFlags> decode_client_flags(std::span<const char, 4> data) {
  const auto flags = get<std::uint32_t>({data.data(), data.size()}, 0);
  if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0 || (flags & kFixedNewstyle) == 0) {
    return fail(ErrorCode::corrupt, "NBD client flags " + std::to_string(flags) + " are not fixed newstyle");
  }
  return ClientFlags{.no_zeroes = (flags & kNoZeroes) != 0};
}

Result<OptionHeader> decode_option(std::span<const char, kOptionHeaderBytes> data) {
  const std::string_view text(data.data(), data.size());
  if (get<std::uint64_t>(text, 0) != kOptionMagic) return fail(ErrorCode::corrupt, "no NBD option");
  const OptionHeader header{get<std::uint32_t>(text, 8), get<std::uint32_t>(text, 12)};
  if (header.length > kMaxOptionBytes) {
    return fail(ErrorCode::too_large, "NBD option of " + std::to_string(header.length) + " bytes");
  }
  return header;
}

OptionAnswer answer_option(std::uint32_t option, std::string_view data, std::uint64_t disk_bytes,
                           ClientFlags flags) {
  OptionAnswer answer;
  switch (option) {
    case kExportName:
      // This one has no answer for an error.
      if (!is_ours(data)) return {{}, Next::close};
      put(answer.out, disk_bytes);
      put(answer.out, kTransmissionFlags);
      if (!flags.no_zeroes) answer.out.append(kZeroes, '\0');
      answer.next = Next::transmit;
      return answer;
    case kAbort: put_reply(answer.out, option, kAck); return {std::move(answer.out), Next::close};
    case kList: {
      if (!data.empty()) {
        put_reply(answer.out, option, kErrInvalid, "LIST takes no data");
        return answer;
      }
      std::string server;
      put(server, static_cast<std::uint32_t>(kName.size()));
      server += kName;
      put_reply(answer.out, option, kServer, server);
      put_reply(answer.out, option, kAck);
      return answer;
    }
    case kInfo:
    case kGo: return answer_info(option, data, disk_bytes);
    default: put_reply(answer.out, option, kErrUnsupported); return answer;
  }
}

Result<Request> decode_request(std::span<const char, kRequestBytes> data) {
  const std::string_view text(data.data(), data.size());
  if (get<std::uint32_t>(text, 0) != kRequestMagic) return fail(ErrorCode::corrupt, "no NBD request");
  return Request{get<std::uint16_t>(text, 4), get<std::uint16_t>(text, 6), get<std::uint64_t>(text, 8),
                 get<std::uint64_t>(text, 16), get<std::uint32_t>(text, 24)};
}

Errno check_request(const Request& request, std::uint64_t disk_bytes) {
  constexpr std::uint16_t kTrim = 4, kWriteZeroes = 6;
  if (request.type == static_cast<std::uint16_t>(Command::write) || request.type == kTrim ||
      request.type == kWriteZeroes) {
    return Errno::eperm;
  }
  if (request.type != static_cast<std::uint16_t>(Command::read) || request.flags != 0) return Errno::einval;
  if (request.length > kMaxRequestBytes) return Errno::einval;
  if (request.offset > disk_bytes || request.length > disk_bytes - request.offset) return Errno::einval;
  return Errno::none;
}

std::array<char, kReplyBytes> encode_reply(std::uint64_t cookie, Errno error) {
  std::string out;
  put(out, kReplyMagic);
  put(out, static_cast<std::uint32_t>(error));
  put(out, cookie);
  std::array<char, kReplyBytes> reply{};
  out.copy(reply.data(), reply.size());
  return reply;
}

}  // namespace educloud::nc::nbd
