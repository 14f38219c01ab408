#include <gtest/gtest.h>

#include "nc/cache/fill_journal.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

using educloud::testing::TempDir;

FillJournal::Header header() {
  FillJournal::Header header;
  header.digest = chunk::ChunkId::of(std::string("v1"));
  header.fingerprint = 42;
  header.disk_bytes = 700 * chunk::kGroupBytes + 1;
  header.base = "IMG00000001/3 abc raw";
  return header;
}

TEST(FillJournal, KeepsMarksAndHeader) {
  const TempDir dir;
  ChunkBits bits(701, 0);
  {
    auto journal = FillJournal::create(dir / "j", header());
    ASSERT_TRUE(journal) << journal.error().message;
    EXPECT_EQ(journal->marked(), bits);
    set_bit(bits, 5);
    ASSERT_TRUE(journal->mark(bits));
    set_bit(bits, 700 * 64);
    set_bit(bits, 513 * 64 + 63);
    ASSERT_TRUE(journal->mark(bits));
  }
  EXPECT_EQ(*FillJournal::read_header(dir / "j"), header());
  const auto again = FillJournal::open(dir / "j", header());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->marked(), bits);
}

TEST(FillJournal, OfAnotherFillIsNotTaken) {
  const TempDir dir;
  ASSERT_TRUE(FillJournal::create(dir / "j", header()));
  auto other = header();
  other.fingerprint = 43;
  EXPECT_EQ(FillJournal::open(dir / "j", other).error().code, ErrorCode::conflict);
  other = header();
  other.base.clear();
  EXPECT_EQ(FillJournal::open(dir / "j", other).error().code, ErrorCode::conflict);
  EXPECT_EQ(FillJournal::open(dir / "none", header()).error().code, ErrorCode::not_found);
}

TEST(FillJournal, DamageIsSeen) {
  const TempDir dir;
  ASSERT_TRUE(FillJournal::create(dir / "j", header()));
  const auto good = educloud::testing::slurp(dir / "j");
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{9}, std::size_t{50}, std::size_t{64}, std::size_t{4090}}) {
    auto bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    dir.write("bad", bad);
    EXPECT_EQ(FillJournal::open(dir / "bad", header()).error().code, ErrorCode::corrupt) << at;
  }
  dir.write("short", good.substr(0, good.size() - 1));
  EXPECT_EQ(FillJournal::open(dir / "short", header()).error().code, ErrorCode::corrupt);
  dir.write("empty", "");
  EXPECT_EQ(FillJournal::read_header(dir / "empty").error().code, ErrorCode::corrupt);
}

TEST(FillJournal, OfAnEmptyDisk) {
  const TempDir dir;
  FillJournal::Header empty;
  ASSERT_TRUE(FillJournal::create(dir / "j", empty));
  EXPECT_TRUE(FillJournal::open(dir / "j", empty));
}

}  // namespace
}  // namespace educloud::nc
