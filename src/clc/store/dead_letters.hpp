#pragma once

#include <optional>
#include <vector>

#include "clc/domain/dead_letter.hpp"
#include "clc/store/sql.hpp"

namespace educloud::clc::store {

/// The newest ones are kept, of these the newest kWholeBodies whole and of the others the beginning: about
/// 70 MiB at the very most, however much a host sends that nobody can read.
inline constexpr std::int64_t kDeadLetters = 10'000;
inline constexpr std::int64_t kWholeBodies = 500;
inline constexpr std::int64_t kBodyBeginning = 4096;

/// Returns its id.
std::int64_t add_dead_letter(Sql& sql, const DeadLetter& letter);
/// Newest first, before row `before` (0: from the newest), without bodies.
std::vector<DeadLetter> list_dead_letters(Sql& sql, std::int64_t before, int limit);
std::optional<DeadLetter> find_dead_letter(Sql& sql, std::int64_t id);
void set_dead_letter_retried(Sql& sql, std::int64_t id, std::int64_t now_ms);
/// False if there is none of that id.
bool remove_dead_letter(Sql& sql, std::int64_t id);
/// How many there were.
int remove_dead_letters(Sql& sql);
std::int64_t count_dead_letters(Sql& sql);

}  // namespace educloud::clc::store
