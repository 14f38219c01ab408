"""The disks that are carried about: a sparse one with real mixed data, and what an update makes of it."""
import os
import random
import shutil
import subprocess

MIB = 1 << 20
BLOCK = 4096
SEED = 20261121


def extents(path):
    """(offset, length) of the data of a sparse file."""
    with open(path, "rb") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, at - start


def data_bytes(path):
    return sum(length for _, length in extents(path))


def fill_folder(folder, total):
    """About `total` bytes of files: seven parts of this system's own programs and libraries, one of random bytes, two
    of text that compresses well."""
    os.makedirs(folder)
    room, copied = total * 7 // 10, 0
    for top in ("/usr/lib", "/usr/bin", "/usr/share", "/usr/sbin", "/var/cache/apt"):
        for base, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                source = os.path.join(base, name)
                if copied >= room:
                    break
                if os.path.islink(source) or not os.path.isfile(source):
                    continue
                size = os.path.getsize(source)
                if size > 128 * MIB:
                    continue
                target = folder + source
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copyfile(source, target)
                copied += size
    # What is missing on a small system is made up with more of the same, shifted so that no two blocks are alike.
    source = random.Random(SEED)
    with open(f"{folder}/noise", "wb") as out:
        for _ in range((total // 10) // MIB):
            out.write(source.randbytes(MIB))
    words = [source.randbytes(4).hex()[: source.randint(2, 8)] for _ in range(4000)]
    with open(f"{folder}/journal", "w", encoding="ascii") as out:
        written, room = 0, total - copied - total // 10
        while written < room:
            line = f"{written:012d} host{source.randint(1, 40)} {' '.join(source.choices(words, k=12))}\n" * 3
            out.write(line)
            written += len(line)


def make_disk(path, disk_bytes, total):
    """A raw disk with an ext4 file system that holds about `total` bytes."""
    folder = path + ".files"
    shutil.rmtree(folder, ignore_errors=True)
    fill_folder(folder, total)
    if os.path.exists(path):
        os.unlink(path)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", folder, path, str(disk_bytes // 1024)],
                   check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "E2FSPROGS_FAKE_TIME": "1700000000"})
    shutil.rmtree(folder)
    subprocess.run(["fallocate", "--dig-holes", path], check=True)


def update_disk(old, new, share, seed=0):
    """`new` is `old` after an update: `share` of its 4 KiB blocks of data rewritten, in runs of 1 to 64 blocks.
    Another `seed` changes other blocks."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", old, new], check=True)
    source = random.Random(SEED + 1 + seed)
    parts = list(extents(old))
    weights = [length for _, length in parts]
    left = int(sum(weights) * share) // BLOCK
    with open(old, "rb") as before, open(new, "r+b") as after:
        while left > 0:
            offset, length = source.choices(parts, weights)[0]
            run = min(source.choice((1, 2, 8, 16, 32, 64)), left, length // BLOCK)
            if run < 1:
                continue
            at = offset + source.randrange(length // BLOCK - run + 1) * BLOCK
            # Data of the same kind from elsewhere on the disk, changed so that nothing of it is there already.
            far, size = source.choices(parts, weights)[0]
            before.seek(far + source.randrange(max(size - run * BLOCK, 1)))
            data = bytearray(before.read(run * BLOCK).ljust(run * BLOCK, b"\1"))
            for block in range(run):
                data[block * BLOCK:block * BLOCK + 8] = source.randbytes(8)
            after.seek(at)
            after.write(data)
            left -= run
    os.sync()


def same_content(a, b):
    """Whether two sparse files hold the same bytes; only where either has data is read."""
    if os.path.getsize(a) != os.path.getsize(b):
        return False
    with open(a, "rb") as left, open(b, "rb") as right:
        for path in (a, b):
            for offset, length in extents(path):
                for at in range(offset, offset + length, 8 * MIB):
                    size = min(8 * MIB, offset + length - at)
                    if os.pread(left.fileno(), size, at) != os.pread(right.fileno(), size, at):
                        return False
    return True
