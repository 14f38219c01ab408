#include "clc/store/store.hpp"

#include <fcntl.h>

#include <atomic>
#include <condition_variable>
#include <deque>

#include "clc/store/backup.hpp"
#include "clc/store/backup_names.hpp"
#include "clc/store/database_file.hpp"
#include "clc/store/migrations.hpp"
#include "clc/store/sql_impl.hpp"
#include "common/base/clock.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::clc::store {
namespace {

struct Job {
  Store::Work work;
  std::function<void(Result<>)> on_done;
  Result<> outcome;
  std::vector<std::function<void()>> hooks;
};

/// Lets a waiting writer withdraw a job that has not begun.
struct Waiter {
  enum class Phase { queued, taken, finished, withdrawn };
  std::mutex mutex;
  std::condition_variable changed;
  Phase phase = Phase::queued;
  Result<> outcome;
};

Result<> guarded(const Store::Work& work, Sql& sql) {
  try {
    return work(sql);
  } catch (const Abort& abort) {
    return fail(abort.error);
  } catch (const std::exception& exception) {
    return fail(ErrorCode::internal, std::string("in a transaction: ") + exception.what());
  }
}

}  // namespace

struct Store::Impl {
  std::filesystem::path path;
  StoreOptions options;
  sys::Fd lock;
  std::unique_ptr<Sql> writer;

  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<std::uint64_t> commits{1};
  std::deque<Job> queue, lazy;
  std::chrono::steady_clock::time_point lazy_due;
  bool stopping = false;
  std::thread thread;

  std::mutex pool_mutex;
  std::vector<std::unique_ptr<Sql>> pool;

  void loop();
  bool post(Store::Work work, std::function<void(Result<>)> on_done, bool lazily);
  void run(std::vector<Job> group);
  void run_group(std::vector<Job>& group);
  Result<> check();
  Result<> migrate();
};

Store::Store() : impl_(std::make_unique<Impl>()) {}
Store::~Store() {
  close();
}

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& path, StoreOptions options) {
  std::unique_ptr<Store> store(new Store());
  auto& impl = *store->impl_;
  impl.path = path;
  impl.options = options;
  auto lock = lock_database(path);
  if (!lock) return fail(lock.error());
  impl.lock = std::move(*lock);
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !list_backups(backup_folder(path)).empty()) {
    // An empty cloud in its place would tell the nodes to forget everything.
    return fail(ErrorCode::not_found, path.string() + " is gone, but there are copies; " +
                                          restore_advice(path) + "; to begin with an empty cloud, move " +
                                          backup_folder(path).string() + " away");
  }
  // Made here with the right mode: SQLite would use the umask. Its -wal and -shm files copy it.
  auto file = sys::open_file(path, O_RDWR | O_CREAT, 0600);
  if (!file) return fail(file.error());
  file->close();
  if (auto ok = impl.check(); !ok) return fail(ok.error());
  try {
    impl.writer = std::make_unique<Sql>(
        std::make_unique<Sql::Impl>(path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_FULLMUTEX));
    auto& db = impl.writer->impl().db;
    db.exec("PRAGMA journal_mode=WAL");
    db.exec("PRAGMA synchronous=FULL");
    db.exec("PRAGMA foreign_keys=ON");
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, path.string()));
  }
  if (auto ok = impl.migrate(); !ok) return fail(ok.error());
  if (options.writer_thread) impl.thread = std::thread([&impl] { impl.loop(); });
  return store;
}

Result<> Store::Impl::check() {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  auto schema = check_database(path, !error && bytes <= kFullCheckBytes);
  if (schema || schema.error().code != ErrorCode::corrupt) return schema.map([](int) {});
  return fail(ErrorCode::corrupt, schema.error().message + "; " + restore_advice(path));
}

Result<> Store::Impl::migrate() {
  auto& db = writer->impl().db;
  try {
    const int have = db.execAndGet("PRAGMA user_version").getInt();
    const int newest = newest_schema();
    if (have > newest) {
      return fail(ErrorCode::invalid_argument, path.string() + " has schema " + std::to_string(have) +
                                                   ", this program knows up to " + std::to_string(newest) +
                                                   ": it was made by a newer version");
    }
    if (have > 0 && have < newest) {
      if (auto ok = copy_before_migration(path, have, SystemClock().wall_ms()); !ok) return ok;
    }
    for (const auto& step : migrations()) {
      if (step.version <= have) continue;
      SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
      db.exec(std::string(step.sql));
      db.exec("PRAGMA user_version = " + std::to_string(step.version));
      transaction.commit();
      obs::info("store.migrated", {{"version", step.version}, {"name", step.name}});
    }
    return {};
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, "migrating " + path.string()));
  }
}

void Store::Impl::loop() {
  const auto urgent = [&] { return stopping || !queue.empty(); };
  const auto take = [](std::deque<Job>& from, std::vector<Job>& to, std::size_t most) {
    while (!from.empty() && to.size() < most) {
      to.push_back(std::move(from.front()));
      from.pop_front();
    }
  };
  while (true) {
    std::vector<Job> group;
    {
      std::unique_lock guard(mutex);
      wake.wait(guard, [&] { return urgent() || !lazy.empty(); });
      if (!urgent()) wake.wait_until(guard, lazy_due, urgent);
      if (queue.empty() && lazy.empty()) return;
      take(queue, group, options.group);
      take(lazy, group, 2 * options.group);
    }
    run(std::move(group));
  }
}

void Store::Impl::run(std::vector<Job> group) {
  run_group(group);
  for (auto& job : group) {
    if (job.outcome) {
      for (const auto& hook : job.hooks) hook();
    }
    job.on_done(std::move(job.outcome));
  }
}

void Store::Impl::run_group(std::vector<Job>& group) {
  auto& db = writer->impl().db;
  try {
    db.exec("BEGIN IMMEDIATE");
    for (auto& job : group) {
      db.exec("SAVEPOINT job");
      job.outcome = guarded(job.work, *writer);
      job.hooks = writer->take_hooks();
      if (!job.outcome) db.exec("ROLLBACK TO job");
      db.exec("RELEASE job");
    }
    db.exec("COMMIT");
    ++commits;
  } catch (const SQLite::Exception& exception) {
    const Error error = sqlite_error(exception, "commit");
    obs::error("store.commit_failed", {{"error", error.message}, {"jobs", group.size()}});
    if (sqlite3_get_autocommit(db.getHandle()) == 0)
      sqlite3_exec(db.getHandle(), "ROLLBACK", nullptr, nullptr, nullptr);
    // Nothing of the group is there now; those that had failed on their own keep their own reason.
    for (auto& job : group) {
      if (job.outcome) job.outcome = fail(error);
    }
  }
}

bool Store::Impl::post(Work work, std::function<void(Result<>)> on_done, bool lazily) {
  if (!options.writer_thread) {
    std::vector<Job> alone(1);
    alone[0].work = std::move(work);
    alone[0].on_done = std::move(on_done);
    run(std::move(alone));
    return true;
  }
  {
    const std::scoped_lock guard(mutex);
    auto& target = lazily ? lazy : queue;
    if (stopping || target.size() >= options.queue_limit) return false;
    if (lazily && lazy.empty()) lazy_due = std::chrono::steady_clock::now() + options.lazy_wait;
    target.push_back({std::move(work), std::move(on_done), {}, {}});
  }
  wake.notify_one();
  return true;
}

bool Store::post(Work work, std::function<void(Result<>)> on_done) {
  return impl_->post(std::move(work), std::move(on_done), false);
}

bool Store::post_lazily(Work work, std::function<void(Result<>)> on_done) {
  return impl_->post(std::move(work), std::move(on_done), true);
}

Result<> Store::run_write(Work work) {
  auto waiter = std::make_shared<Waiter>();
  const bool queued = post(
      [waiter, inner = std::move(work)](Sql& sql) -> Result<> {
        {
          const std::scoped_lock guard(waiter->mutex);
          if (waiter->phase == Waiter::Phase::withdrawn) return fail(ErrorCode::timeout, "withdrawn");
          waiter->phase = Waiter::Phase::taken;
        }
        return inner(sql);
      },
      [waiter](Result<> outcome) {
        const std::scoped_lock guard(waiter->mutex);
        waiter->outcome = std::move(outcome);
        waiter->phase = Waiter::Phase::finished;
        waiter->changed.notify_all();
      });
  if (!queued)
    return fail(ErrorCode::exhausted, "the database has too many writes waiting: try again in a moment");
  std::unique_lock guard(waiter->mutex);
  const auto begun = [&] { return waiter->phase != Waiter::Phase::queued; };
  if (!waiter->changed.wait_for(guard, impl_->options.deadline,
                                [&] { return waiter->phase == Waiter::Phase::finished; }) &&
      !begun()) {
    waiter->phase = Waiter::Phase::withdrawn;
    return fail(ErrorCode::timeout, "the database did not get to this write in time: nothing was changed");
  }
  // Once begun it ends by itself: a statement waits at most 5 s for a lock, and `work` refers to our stack.
  waiter->changed.wait(guard, [&] { return waiter->phase == Waiter::Phase::finished; });
  return waiter->outcome;
}

Result<> Store::run_read(const Work& work) {
  std::unique_ptr<Sql> sql;
  {
    const std::scoped_lock guard(impl_->pool_mutex);
    if (!impl_->pool.empty()) {
      sql = std::move(impl_->pool.back());
      impl_->pool.pop_back();
    }
  }
  Result<> result;
  try {
    if (!sql) {
      sql = std::make_unique<Sql>(std::make_unique<Sql::Impl>(impl_->path.string(), SQLite::OPEN_READONLY));
      sql->impl().db.exec("PRAGMA query_only=ON");
    }
    sql->impl().db.exec("BEGIN");
    result = guarded(work, *sql);
    sql->impl().db.exec("END");
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, "reading " + impl_->path.string()));  // the connection is dropped
  }
  const std::scoped_lock guard(impl_->pool_mutex);
  if (impl_->pool.size() < 16) impl_->pool.push_back(std::move(sql));
  return result;
}

std::uint64_t Store::commits() const {
  return impl_->commits;
}

void Store::close() {
  {
    const std::scoped_lock guard(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace educloud::clc::store
