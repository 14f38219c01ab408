#pragma once

#include <cstdint>
#include <string_view>

#include "common/transfer/chunk_routes.hpp"

namespace educloud::transfer {

/// Ids, grant and priority of a request below /images/{id}/versions/{n}. `method`: what the grant must be
/// for. Errors: invalid_argument, permission_denied.
Result<ChunkCaller> check_caller(const http::Request& request, std::string_view method, std::string_view key,
                                 std::int64_t now_s);

/// The headers of a PUT of a version, without its manifest. Errors: invalid_argument.
Result<ChunkSink::Publish> read_publish(const http::Request& request);

/// Bit i of byte i/8, as hex. And back: exactly `count` bits; corrupt otherwise.
std::string encode_bitmap(const std::vector<bool>& bits);
Result<std::vector<bool>> decode_bitmap(std::string_view hex, std::size_t count);

}  // namespace educloud::transfer
