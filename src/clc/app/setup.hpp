#pragma once

#include <string_view>

#include "common/base/clock.hpp"
#include "common/base/result.hpp"

namespace educloud::clc {

namespace store {
class Store;
}

/// What `educloud init` writes into a new (or existing) database; each is idempotent. The database must
/// not be open in a running clc (Store::open then says conflict).

/// True if an account of that name was made now; false if it was there (its password is kept).
/// Errors: invalid_argument (name not [a-z][a-z0-9._-]{0,31}, password shorter than 8 or longer than 128).
Result<bool> create_account(store::Store& store, const Clock& clock, std::string_view name,
                            std::string_view password, bool admin);
/// Replaces the password and ends the account's sessions.
Result<> set_password(store::Store& store, std::string_view name, std::string_view password);
/// Makes a cc known by its host name.
Result<> register_cluster(store::Store& store, std::string_view host);
/// Makes a node known under its cc (registered before). Moving it to another cc is allowed.
Result<> register_node(store::Store& store, std::string_view host, std::string_view cluster);

}  // namespace educloud::clc
