package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

const runtimeToolsVersion = "v0.9.0"

// runtimeToolsModule stands for the go.mod that the module does not have.
const runtimeToolsModule = `module github.com/opencontainers/runtime-tools

go 1.21

require (
	github.com/blang/semver v3.5.1+incompatible
	github.com/hashicorp/go-multierror v1.1.1
	github.com/mndrix/tap-go v0.0.0-20171203230836-629fa407e90b
	github.com/mrunalp/fileutils v0.5.1
	github.com/opencontainers/runtime-spec v1.0.2
	github.com/opencontainers/selinux v1.2.2
	github.com/satori/go.uuid v1.2.0
	github.com/sirupsen/logrus v1.9.3
	github.com/syndtr/gocapability v0.0.0-20200815063812-42c35b437635
	github.com/urfave/cli v1.22.14
	github.com/xeipuuv/gojsonschema v1.2.0
)
`

// runtimeTools are the programs below validation/, which put runtimetest into the containers that they make.
var runtimeTools = suite{
	parallel: 1, // several use the same cgroup
	prepare: func(dir string) (programs []string, err error) {
		bin := filepath.Join(dir, "bin")
		if _, err := os.Stat(filepath.Join(dir, "runtimetest")); err != nil {
			if err := module("github.com/opencontainers/runtime-tools", runtimeToolsVersion, dir); err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(runtimeToolsModule), 0o644); err != nil {
				return nil, err
			}
			if err := command(dir, "go", "build", "-p", "2", "-ldflags", "-s -w", "-o", bin+"/", "./validation/..."); err != nil {
				return nil, err
			}
			if err := command(dir, "go", "build", "-o", "runtimetest", "./cmd/runtimetest"); err != nil {
				return nil, err
			}
		}
		ds, err := os.ReadDir(bin)
		for _, d := range ds {
			programs = append(programs, d.Name())
		}
		return programs, err
	},
	command: func(ctx context.Context, dir, program, runtime string) *exec.Cmd {
		c := exec.CommandContext(ctx, filepath.Join(dir, "bin", program))
		c.Dir = dir
		c.Env = append(os.Environ(), "RUNTIME="+runtime)
		return c
	},
}
