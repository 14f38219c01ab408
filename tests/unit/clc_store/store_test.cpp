#include "clc/store/store.hpp"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <fstream>

#include "clc/store/accounts.hpp"
#include "clc/store/migrations.hpp"
#include "clc/store/tasks.hpp"
#include "support/fault.hpp"

namespace educloud::clc::store {
namespace {

using testing::HasSubstr;

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/clc_store_XXXXXX";
    folder_ = ::mkdtemp(name);
    file_ = folder_ / "clc.sqlite";
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  Store& open() {
    auto opened = Store::open(file_);
    EXPECT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
    return *store_;
  }
  Result<> add(Store& store, std::string name) {
    return store.write([&](Sql& sql) -> Result<> {
      add_account(sql, {name, false, "x", 1});
      return {};
    });
  }
  std::int64_t accounts(Store& store) {
    return *store.read(
        [](Sql& sql) -> Result<std::int64_t> { return sql.number("SELECT COUNT(*) FROM accounts"); });
  }

  std::filesystem::path folder_, file_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, MakesItsSchemaOnceWithDefaults) {
  auto& store = open();
  const auto version =
      store.read([](Sql& sql) -> Result<std::int64_t> { return sql.number("PRAGMA user_version"); });
  EXPECT_EQ(*version, migrations().back().version);
  const auto types = store.read([](Sql& sql) -> Result<std::vector<VmType>> { return list_vmtypes(sql); });
  EXPECT_EQ(types->size(), 6u);
  store_.reset();
  EXPECT_EQ(accounts(open()), 0);
  EXPECT_EQ(std::filesystem::status(file_).permissions() & std::filesystem::perms(077),
            std::filesystem::perms::none);
}

TEST_F(StoreTest, KeepsWhatAServerNeeds) {
  auto& store = open();
  Instance server;
  server.insid = "VS00000001";
  server.name = "wiki";
  server.owner = "ann";
  server.imgid = "IMG00000001";
  server.vmtype = "vssmall";
  server.memory_mib = 4096;
  server.folder_protocol = "smb";
  server.autostart = true;
  ASSERT_TRUE(store.write([&](Sql& sql) -> Result<> {
    add_account(sql, {"ann", false, "x", 1});
    Image image;
    image.imgid = server.imgid;
    image.name = "wiki";
    image.owner = "ann";
    image.ostype = "linux";
    image.usage = "server";
    image.database_gib = 7;
    image.database_imgid = "IMG00000002";
    add_image(sql, image);
    add_instance(sql, server);
    set_disk_cluster(sql, server.insid, "cc1");
    put_cluster(sql, "cc1");
    set_database_mode(sql, "cc1", "nbd");
    put_ostype(sql, {"bsd", "ide", "rtl8139", "none", "smb"});
    return {};
  }));
  store_.reset();
  ASSERT_TRUE(open().read([](Sql& sql) -> Result<> {
    const auto one = find_instance(sql, "VS00000001");
    EXPECT_EQ(one->disk_cluster, "cc1");
    EXPECT_EQ(one->folder_protocol, "smb");
    EXPECT_TRUE(one->autostart);
    EXPECT_EQ(find_cluster(sql, "cc1")->database_mode, "nbd");
    EXPECT_FALSE(find_cluster(sql, "cc2"));
    EXPECT_EQ(find_ostype(sql, "bsd")->folder_protocol, "smb");
    EXPECT_EQ(find_ostype(sql, "linux")->folder_protocol, "virtiofs");
    EXPECT_EQ(find_ostype(sql, "windows")->folder_protocol, "smb") << "it has no driver for the other";
    EXPECT_EQ(find_image_of_database(sql, "IMG00000002")->database_gib, 7);
    return {};
  }));
}

TEST_F(StoreTest, RefusesASecondInstance) {
  open();
  const auto second = Store::open(file_);
  educloud::test::injected("two-clc");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
  EXPECT_THAT(second.error().message, HasSubstr("in use by another process"));
}

TEST_F(StoreTest, RefusesANewerSchemaAndGarbage) {
  ASSERT_TRUE(open().write([](Sql& sql) -> Result<> {
    sql.run("PRAGMA user_version = 999");
    return {};
  }));
  store_.reset();
  EXPECT_THAT(Store::open(file_).error().message, HasSubstr("made by a newer version"));
  std::filesystem::remove(file_);
  std::ofstream(file_) << std::string(8192, 'x');
  EXPECT_EQ(Store::open(file_).error().code, ErrorCode::corrupt);
}

TEST_F(StoreTest, AnErrorRollsBackOnlyItsOwnWork) {
  auto& store = open();
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0, failed = 0;
  // Held back by the first, so that the others share a commit.
  std::atomic<bool> go = false;
  const auto count = [&](const Result<>& result) {
    const std::scoped_lock guard(mutex);
    ++done;
    failed += result ? 0 : 1;
    changed.notify_all();
  };
  store.post(
      [&](Sql&) -> Result<> {
        while (!go) std::this_thread::yield();
        return {};
      },
      count);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(store.post(
        [i](Sql& sql) -> Result<> {
          add_account(sql, {"a" + std::to_string(i), false, "x", 1});
          if (i % 4 == 1) return fail(ErrorCode::conflict, "on purpose");
          if (i % 4 == 2) sql.run("INSERT INTO nodes VALUES ('n', 'nowhere', 1)");  // breaks a foreign key
          if (i % 4 == 3) throw std::runtime_error("a defect");
          return {};
        },
        count));
  }
  go = true;
  std::unique_lock guard(mutex);
  ASSERT_TRUE(changed.wait_for(guard, std::chrono::seconds{20}, [&] { return done == 21; }));
  EXPECT_EQ(failed, 15);
  EXPECT_EQ(accounts(store), 5);
}

TEST_F(StoreTest, HooksRunOnlyAfterACommit) {
  auto& store = open();
  std::atomic<int> ran = 0;
  ASSERT_TRUE(store.write([&](Sql& sql) -> Result<> {
    sql.after_commit([&] { ++ran; });
    return {};
  }));
  EXPECT_EQ(ran, 1);
  EXPECT_FALSE(store.write([&](Sql& sql) -> Result<> {
    sql.after_commit([&] { ++ran; });
    return fail(ErrorCode::conflict, "no");
  }));
  EXPECT_EQ(ran, 1);
}

TEST_F(StoreTest, WhatIsPostedLazilyGoesWithTheNextWriteOrAloneAfterAWhile) {
  StoreOptions options;
  options.lazy_wait = std::chrono::minutes{1};
  store_ = std::move(*Store::open(file_, options));
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0;
  const auto post = [&](const std::string& name) {
    return store_->post_lazily(
        [name](Sql& sql) -> Result<> {
          add_account(sql, {name, false, "x", 1});
          return {};
        },
        [&](const Result<>& outcome) {
          const std::lock_guard lock(mutex);
          done += outcome ? 1 : 100;
          changed.notify_all();
        });
  };
  const auto before = store_->commits();
  ASSERT_TRUE(post("ada"));
  ASSERT_TRUE(post("bob"));
  EXPECT_EQ(accounts(*store_), 0);
  ASSERT_TRUE(add(*store_, "eve"));
  EXPECT_EQ(accounts(*store_), 3);
  EXPECT_EQ(store_->commits(), before + 1);
  options.lazy_wait = std::chrono::milliseconds{1};
  store_.reset();
  store_ = std::move(*Store::open(file_, options));
  ASSERT_TRUE(post("zoe"));
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds{30}, [&] { return done == 3; }));
  EXPECT_EQ(accounts(*store_), 4);
}

TEST_F(StoreTest, ReadersCannotWriteAndSeeWhatIsCommitted) {
  auto& store = open();
  ASSERT_TRUE(add(store, "ann"));
  const auto result = store.read([](Sql& sql) -> Result<> {
    sql.run("DELETE FROM accounts");
    return {};
  });
  EXPECT_FALSE(result);
  EXPECT_EQ(accounts(store), 1);
}

TEST_F(StoreTest, ManyThreadsWriteAndReadAtOnce) {
  auto& store = open();
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        if (add(store, "t" + std::to_string(t) + "." + std::to_string(i))) ++good;
        accounts(store);
      }
    });
  }
  for (auto& one : threads) one.join();
  EXPECT_EQ(good, 400);
  EXPECT_EQ(accounts(store), 400);
}

TEST_F(StoreTest, APortHasOneOwnerAndIsFreedWithItsInstance) {
  auto& store = open();
  const auto result = store.write([](Sql& sql) -> Result<> {
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD1", 5900, 5901), 5900);
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD1", 5900, 5901), 5900);  // keeps it
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD2", 5900, 5901), 5901);
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD3", 5900, 5901), 0);
    EXPECT_EQ(take_port(sql, "nc2", "display", "VD3", 5900, 5901), 5900);
    free_ports(sql, "VD1");
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD4", 5900, 5901), 5900);
    EXPECT_EQ(take_port(sql, "nc2", "display", "VD2", 5900, 5901), 5901);  // moved: gives the old one back
    EXPECT_EQ(take_port(sql, "nc1", "display", "VD5", 5900, 5901), 5901);
    return {};
  });
  EXPECT_TRUE(result) << result.error().message;
}

// Writes accounts until it is killed, telling each one that was acknowledged.
[[noreturn]] void write_for_ever(const std::filesystem::path& file, int pipe) {
  auto store = Store::open(file);
  if (!store) ::_exit(3);
  for (int i = 0;; ++i) {
    auto done = (*store)->write([&](Sql& sql) -> Result<> {
      add_account(sql, {"n" + std::to_string(i), false, "x", i});
      add_outbox(sql, {0, "cc_cmd", "cc1", "{}", "m" + std::to_string(i), 0}, i);
      return {};
    });
    if (!done || ::write(pipe, &i, sizeof i) != sizeof i) ::_exit(4);
  }
}

TEST_F(StoreTest, AKilledWriterLosesNothingItAcknowledged) {
  for (int round = 0; round < 3; ++round) {
    std::filesystem::remove(file_);
    std::filesystem::remove(file_.string() + "-wal");
    std::filesystem::remove(file_.string() + "-shm");
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(ends[0]);
      write_for_ever(file_, ends[1]);
    }
    ::close(ends[1]);
    int last = -1, got = 0;
    while (last < 50 + 37 * round && ::read(ends[0], &got, sizeof got) == sizeof got) last = got;
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    educloud::test::injected("daemon-killed");
    while (::read(ends[0], &got, sizeof got) == sizeof got) last = got;
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    auto& store = open();
    const auto count = accounts(store);
    EXPECT_GE(count, last + 1);
    const auto outbox = store.read([](Sql& sql) -> Result<std::int64_t> { return outbox_size(sql); });
    EXPECT_EQ(*outbox, count) << "half a transaction";
    store_.reset();
  }
}

}  // namespace
}  // namespace educloud::clc::store
