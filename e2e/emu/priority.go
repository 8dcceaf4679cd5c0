package emu

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// RaisePriority gives the whole process real-time priority (SCHED_RR 1): an emulated
// link must not get slower because the programs under test keep the processors busy.
// All threads get it, those to come by inheritance: were it the pump's alone, the pump
// would wait for the Go runtime's other threads, which then wait for their turn. The
// kernel keeps 5 % of the time for others (sched_rt_runtime_us). They take turns: by
// SCHED_FIFO two programs that let only their own threads run have stood still for ever.
func RaisePriority() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("real-time priority: %w", err)
	}
	turns := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("real-time priority: %w", err)
		}
		if err := unix.SchedSetAttr(tid, &turns, 0); err != nil {
			return fmt.Errorf("real-time priority: %w", err)
		}
	}
	return nil
}
