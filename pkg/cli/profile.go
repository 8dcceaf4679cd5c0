package cli

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// Environment variables that make run write profiles for go tool pprof. They
// are for the developers of the agents, not part of any interface, and may
// change or vanish without notice.
const (
	// cpuProfile names the file that gets the CPU profile of the whole run.
	cpuProfile = "HAWSER_CPUPROFILE"
	// memProfile names the file that gets what was on the heap and what was
	// allocated, when the run has ended.
	memProfile = "HAWSER_MEMPROFILE"
)

// profiled runs the agent and writes the profiles that the environment asks
// for.
func profiled(run func() error) error {
	stop, err := startCPUProfile(os.Getenv(cpuProfile))
	if err != nil {
		return err
	}
	err = run()
	return errors.Join(err, stop(), writeMemProfile(os.Getenv(memProfile)))
}

func startCPUProfile(name string) (stop func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cpuProfile, err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", cpuProfile, err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func writeMemProfile(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("%s: %w", memProfile, err)
	}
	runtime.GC() // so that the heap is shown as it is now
	if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
		err = fmt.Errorf("%s: %w", memProfile, err)
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
