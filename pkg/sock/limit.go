package sock

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RaiseFileLimit raises the number of descriptors that the process may have
// open (RLIMIT_NOFILE) to most, or as far as it may, and returns what it is
// then. A process with CAP_SYS_RESOURCE is only bound by fs.nr_open. Limits that
// are higher stay.
func RaiseFileLimit(most uint64) (uint64, error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return 0, fmt.Errorf("sock: limit of open files: %w", err)
	}
	if now.Cur >= most {
		return now.Cur, nil
	}
	for _, try := range []uint64{min(most, kernelFileLimit()), min(most, now.Max)} {
		want := unix.Rlimit{Cur: try, Max: max(try, now.Max)}
		if try > now.Cur && unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
			return try, nil
		}
	}
	return now.Cur, nil
}

// kernelFileLimit is fs.nr_open, or 0 when it cannot be read.
func kernelFileLimit() uint64 {
	data, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
