#pragma once

#include <span>
#include <string_view>

namespace educloud::clc::store {

/// One step of the schema. Never edited once released: a change is a new step.
struct Migration {
  int version;  ///< 1, 2, 3 ...: `user_version` after it
  std::string_view name;
  std::string_view sql;
};

std::span<const Migration> migrations();

}  // namespace educloud::clc::store
