#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::transfer {

/// Leave to do one thing with one path, for one host, for a while. It travels as the query string
/// "node=<host>&expires=<unix s>&sig=<hex>"; sig = HMAC-SHA256(key, METHOD "\n" path "\n" node "\n" expires).
struct Grant {
  std::string method;          ///< "GET" (also covers HEAD) or "PUT"
  std::string path;            ///< as in Request::path, without query
  std::string node;            ///< host name it is for; `kUserNode` for a person's upload
  std::int64_t expires_s = 0;  ///< unix seconds; refused from then on
};

/// The `node` of grants for users' own uploads (a person has no host name in the cloud).
inline constexpr std::string_view kUserNode = "user";

/// The query string of `grant`, signed with `key`. Put it after '?' (or '&'); it needs no further encoding.
std::string sign_grant(std::string_view key, const Grant& grant);

/// The host a request's grant is for. Signatures are compared in constant time.
/// Errors: permission_denied (missing or malformed part, other path or method, changed in any way, expired).
Result<std::string> verify_grant(std::string_view key, std::string_view method, std::string_view path,
                                 const std::map<std::string, std::string>& query, std::int64_t now_s);

/// The key of one node, 64 hex digits: HMAC-SHA256(data_key, "node:" + host). It lets clc and that node
/// trust each other and says nothing about the key of another node.
std::string derive_node_key(std::string_view data_key, std::string_view host);

/// HMAC-SHA256 as 64 lower-case hex digits. A key is used as the text it is (64 hex digits), never decoded.
std::string hmac_hex(std::string_view key, std::string_view text);
/// Equal, in a time that does not depend on where they differ.
bool equal_constant_time(std::string_view a, std::string_view b);

/// A data_key or node_key from its file. Errors: as sys::read_secret_file, and invalid_argument unless
/// it is 64 lower-case hex digits (the content is never shown).
Result<std::string> load_key(const std::filesystem::path& path);

/// The path that grants are made for: GET to read anything of a version, PUT to make it.
/// "/images/<imgid>/versions/<n>".
std::string version_path(std::string_view imgid, int version);

}  // namespace educloud::transfer
