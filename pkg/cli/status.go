package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/wire"
)

func (p *program[C]) statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show the running agent's links, flows and counters"}
	path := p.configFlag(cmd)
	control := cmd.Flags().String("control", "", "control socket of the agent, instead of the configuration's")
	asJSON := cmd.Flags().Bool("json", false, "print the status as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		socket := *control
		if socket == "" {
			box, err := p.box(cmd, *path)
			if err != nil {
				return err
			}
			socket = box.Control
		}
		return fail(p.status(cmd.Context(), socket, *asJSON))
	}
	return cmd
}

func (p *program[C]) status(ctx context.Context, socket string, asJSON bool) error {
	status, err := admin.Fetch(ctx, socket)
	if err != nil {
		return err
	}
	if asJSON {
		return p.printJSON(status)
	}
	return admin.Render(p.out, status)
}

// box returns the machine's settings: those of the configuration file, or the
// defaults when no file is named and there is none in the usual place.
func (p *program[C]) box(cmd *cobra.Command, path string) (config.Box, error) {
	cfg, err := p.load(path)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		return config.Box{Namespace: config.DefaultNamespace, Control: p.socket()}, nil
	}
	if err != nil {
		return config.Box{}, err
	}
	return *cfg.Settings(), nil
}

func (p *program[C]) cleanupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cleanup", Short: "Remove whatever a crashed run left on this host"}
	path := p.configFlag(cmd)
	namespace := cmd.Flags().String("namespace", "", "namespace of the crashed run, instead of the configuration's; no file is read")
	control := cmd.Flags().String("control", "", "with --namespace: control socket of the crashed run")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *control != "" && *namespace == "" {
			return errors.New("--control goes with --namespace")
		}
		box := config.Box{Namespace: *namespace, Control: *control}
		var err error
		if *namespace == "" {
			box, err = p.box(cmd, *path)
		} else if _, err = config.ParseName(*namespace); err != nil {
			err = fmt.Errorf("--namespace: %w", err)
		}
		if err != nil {
			return err
		}
		return fail(p.cleanup(box))
	}
	return cmd
}

// cleanup looks at the control socket first: under a running agent nothing
// may be removed.
func (p *program[C]) cleanup(box config.Box) error {
	stale := false
	if box.Control != "" {
		var err error
		if stale, err = admin.RemoveStale(box.Control); err != nil {
			return err
		}
	}
	removed, err := p.role.Cleanup(box.Namespace)
	if stale {
		removed = append(removed, "control socket "+box.Control)
	}
	for _, what := range removed {
		fmt.Fprintf(p.out, "removed %s\n", what)
	}
	if err != nil {
		return err
	}
	if len(removed) == 0 {
		fmt.Fprintf(p.out, "nothing of namespace %s is left on this host\n", box.Namespace)
	}
	return nil
}

func (p *program[C]) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of program and protocol"}
	cmd.RunE = func(*cobra.Command, []string) error {
		_, err := fmt.Fprintf(p.out, "%s %s%s, protocol %d, %s\n", p.binary(), admin.Release, revision(), wire.VersionMax, runtime.Version())
		return fail(err)
	}
	return cmd
}

// revision returns " (commit)" when the build recorded one.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return " (" + s.Value[:12] + ")"
		}
	}
	return ""
}
