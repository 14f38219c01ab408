#pragma once

#include <filesystem>

#include "cli/init/init.hpp"
#include "cli/init/options.hpp"

namespace educloud::cli {

struct AdminOutcome {
  bool created = false;
  bool password_set = false;
};

/// Makes clc's database with its schema if it is missing, and registers in it the clusters, the nodes and the
/// admin. An admin who is there keeps his password unless the plan says reset_admin_password. Errors:
/// conflict while clc runs (it owns its database), invalid_argument (name or password of the admin).
Result<AdminOutcome> fill_database(const std::filesystem::path& database, const InitPlan& plan,
                                   const AskPassword& ask_password);

}  // namespace educloud::cli
