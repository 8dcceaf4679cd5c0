// Hawser-emu emulates uplinks between pairs of interfaces (package emu).
//
//	hawser-emu run CONFIG.json CONTROL.sock
//	hawser-emu status CONTROL.sock
//	hawser-emu set CONTROL.sock PATH up|down|both '{"rate": 5000000, "blackhole": false}'
//
// Run prints "ready" when it forwards, and ends on SIGINT or SIGTERM.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"hawser/e2e/emu"
)

const usage = `usage: hawser-emu run CONFIG.json CONTROL.sock
       hawser-emu status CONTROL.sock
       hawser-emu set CONTROL.sock PATH up|down|both PARAMS-JSON`

const heapLimit = 1 << 30

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hawser-emu:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "run":
		return run(args[1], args[2])
	case len(args) == 2 && args[0] == "status":
		return ask(args[1], emu.Request{Op: "status"})
	case len(args) == 5 && args[0] == "set":
		return ask(args[1], emu.Request{
			Op: "set", Path: args[2], Dir: emu.Direction(args[3]), Params: json.RawMessage(args[4]),
		})
	}
	return errors.New(usage)
}

// run serves until a signal.
func run(config, socket string) error {
	c, err := emu.LoadConfig(config)
	if err != nil {
		return err
	}
	e, err := emu.Open(c)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		e.Close()
		return fmt.Errorf("control socket: %w", err)
	}
	if err := emu.RaisePriority(); err != nil {
		fmt.Fprintln(os.Stderr, "hawser-emu: less exact on a busy machine:", err)
	}
	// A collection would stop the pump. Only control requests make garbage, a few KB
	// each, so there is none before the heap reaches the limit.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go serve(ctx, e, listener, ended)
	fmt.Println("ready")
	err = e.Run(ctx)
	stop()
	return errors.Join(err, <-ended)
}

func serve(ctx context.Context, e *emu.Emulator, l net.Listener, ended chan<- error) {
	ended <- e.ServeControl(ctx, l)
}

// ask sends one request and prints the answer.
func ask(socket string, req emu.Request) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return err
	}
	var resp emu.Response
	if err := json.Unmarshal(line, &resp); err != nil {
		return err
	}
	if resp.Error != "" {
		return errors.New(resp.Error)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(resp.Paths)
}
