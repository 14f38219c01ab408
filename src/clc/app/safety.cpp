#include "clc/app/safety.hpp"

#include "clc/app/cloud_impl.hpp"
#include "clc/app/status_consumer.hpp"
#include "clc/store/dead_letters.hpp"

namespace educloud::clc {
namespace {

using nlohmann::json;

tl::unexpected<Error> no_letter(std::int64_t id) {
  return fail(ErrorCode::not_found, "there is no dead letter " + std::to_string(id));
}

}  // namespace

void Safety::audit(store::Sql& sql, const Principal& who, std::string_view action, std::string_view object,
                   std::string_view detail) {
  store::audit(sql, clock_.wall_ms(), who.account, action, object, detail);
}

Result<Page<DeadLetter>> Safety::dead_letters(const Principal& who, const PageRequest& page) {
  if (auto ok = check(who, Deed::see_dead_letters, "", ""); !ok) return fail(ok.error());
  auto before = parse_cursor(page);
  if (!before) return fail(before.error());
  return store_.read([&](store::Sql& sql) -> Result<Page<DeadLetter>> {
    Page<DeadLetter> out;
    out.items = store::list_dead_letters(sql, *before, page.limit);
    if (static_cast<int>(out.items.size()) == page.limit) out.next = std::to_string(out.items.back().id);
    return out;
  });
}

Result<DeadLetter> Safety::dead_letter(const Principal& who, std::int64_t id) {
  if (auto ok = check(who, Deed::see_dead_letters, "", ""); !ok) return fail(ok.error());
  return store_.read([&](store::Sql& sql) -> Result<DeadLetter> {
    auto letter = store::find_dead_letter(sql, id);
    if (!letter) return no_letter(id);
    return std::move(*letter);
  });
}

// The present command of the letter's task, once more. The letter itself is not sent: what it holds may be
// forged, and its deadline has passed.
Result<std::string> Safety::send_again(store::Sql& sql, const DeadLetter& letter) {
  auto command = command_to_retry(letter);
  if (!command) return fail(command.error());
  auto task = store::open_task(sql, command->tid);
  const std::string which = "task " + command->tid;
  if (!task) return fail(ErrorCode::conflict, which + " has ended: nobody waits for this command any more");
  if (task->cmdid != command->cmdid) {
    return fail(ErrorCode::conflict, which + " is at another command by now (" + task->op + "): this one (" +
                                         command->op + ") would only be refused");
  }
  if (!task->op_open) return fail(ErrorCode::conflict, which + " has the answer to this command already");
  engine_.resend(sql, std::move(*task));
  return "sent_again";
}

Result<RetriedView> Safety::retry_dead_letter(const Principal& who, std::int64_t id) {
  if (auto ok = check(who, Deed::settle_dead_letters, "", ""); !ok) return fail(ok.error());
  StatusConsumer statuses(store_, engine_, clock_);
  return store_.write([&](store::Sql& sql) -> Result<RetriedView> {
    auto letter = store::find_dead_letter(sql, id);
    if (!letter) return no_letter(id);
    Result<std::string> outcome;
    if (kind_of_queue(letter->queue) == LetterKind::command) {
      outcome = send_again(sql, *letter);
    } else if (auto ok = check_status_to_retry(*letter); !ok) {
      outcome = fail(ok.error());
    } else {
      outcome = statuses.retry(sql, *letter);
    }
    if (!outcome) return fail(outcome.error());
    letter->retried_at = clock_.wall_ms();
    store::set_dead_letter_retried(sql, id, letter->retried_at);
    audit(sql, who, "dead_letter.retry", std::to_string(id), *outcome);
    return RetriedView{std::move(*letter), std::move(*outcome)};
  });
}

Result<DroppedView> Safety::drop_dead_letter(const Principal& who, std::int64_t id) {
  if (auto ok = check(who, Deed::settle_dead_letters, "", ""); !ok) return fail(ok.error());
  return store_.write([&](store::Sql& sql) -> Result<DroppedView> {
    if (!store::remove_dead_letter(sql, id)) return no_letter(id);
    audit(sql, who, "dead_letter.drop", std::to_string(id));
    return DroppedView{1};
  });
}

Result<DroppedView> Safety::drop_dead_letters(const Principal& who) {
  if (auto ok = check(who, Deed::settle_dead_letters, "", ""); !ok) return fail(ok.error());
  return store_.write([&](store::Sql& sql) -> Result<DroppedView> {
    const int count = store::remove_dead_letters(sql);
    audit(sql, who, "dead_letter.drop_all", std::to_string(count));
    return DroppedView{count};
  });
}

Result<BackupView> Safety::back_up(const Principal& who) {
  if (auto ok = check(who, Deed::back_up, "", ""); !ok) return fail(ok.error());
  const std::int64_t now = clock_.wall_ms();
  auto made = backups_.make();
  if (!made) return fail(made.error());
  auto noted = store_.write([&](store::Sql& sql) -> Result<> {
    audit(sql, who, "backup", made->file.filename().string());
    return {};
  });
  if (!noted) return fail(noted.error());
  return BackupView{made->file.string(), "regular", now, made->bytes, made->seconds};
}

Result<Page<BackupView>> Safety::backups(const Principal& who) {
  if (auto ok = check(who, Deed::back_up, "", ""); !ok) return fail(ok.error());
  Page<BackupView> page;
  for (const auto& one : backups_.list())
    page.items.push_back({one.file.string(), one.kind, one.at, one.bytes, 0});
  std::reverse(page.items.begin(), page.items.end());
  return page;
}

std::int64_t Safety::last_backup_at() const {
  const auto all = backups_.list();
  return all.empty() ? 0 : all.back().at;
}

json to_json(const DeadLetter& letter, bool with_body) {
  json out{{"id", letter.id},
           {"at", letter.at},
           {"queue", letter.queue},
           {"kind", to_string(kind_of_queue(letter.queue))},
           {"reason", letter.reason},
           {"cause", letter.cause},
           {"exchange", letter.exchange},
           {"routing_key", letter.routing_key},
           {"sender", letter.sender},
           {"bytes", letter.bytes},
           {"retried_at", letter.retried_at}};
  if (with_body) out["body"] = readable_body(letter);
  return out;
}

json to_json(const RetriedView& retried) {
  auto out = to_json(retried.letter);
  out["outcome"] = retried.outcome;
  return out;
}

json to_json(const DroppedView& dropped) {
  return {{"dropped", dropped.dropped}};
}

json to_json(const BackupView& backup) {
  return {{"file", backup.file},
          {"kind", backup.kind},
          {"at", backup.at},
          {"bytes", backup.bytes},
          {"seconds", backup.seconds}};
}

}  // namespace educloud::clc
