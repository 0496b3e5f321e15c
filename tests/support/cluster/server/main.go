// The servers of the test cluster in one program, so that what they share is compiled and linked once:
//
//	cluster store|apiserver|controllers|scheduler|nodes [flags of that server]
//
// The store is etcd, the nodes are kwok's: they and their pods say what a real cluster's would, and run nothing.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	"sigs.k8s.io/kwok/pkg/config"
	kwok "sigs.k8s.io/kwok/pkg/kwok/cmd"
	"sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/signals"
)

var servers = map[string]func() (*cobra.Command, error){
	"apiserver":   func() (*cobra.Command, error) { return apiserver.NewAPIServerCommand(), nil },
	"controllers": func() (*cobra.Command, error) { return controllers.NewControllerManagerCommand(), nil },
	"scheduler":   func() (*cobra.Command, error) { return scheduler.NewSchedulerCommand(), nil },
	"nodes":       nodes,
	"store":       func() (*cobra.Command, error) { etcdmain.Main(os.Args); return nil, nil },
}

// nodes is kwok's main function.
func nodes() (*cobra.Command, error) {
	flags := pflag.NewFlagSet("global", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	ctx, _ := log.InitFlags(signals.SetupSignalContext(), flags)
	ctx, err := config.InitFlags(ctx, flags)
	if err != nil {
		return nil, err
	}
	command := kwok.NewCommand(ctx)
	command.PersistentFlags().AddFlagSet(flags)
	command.SetContext(ctx)
	// Kubernetes has a flag of this name among those of the whole program.
	command.Version = ""
	return command, nil
}

func main() {
	if len(os.Args) < 2 || servers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: cluster store|apiserver|controllers|scheduler|nodes [flags]")
		os.Exit(2)
	}
	server := servers[os.Args[1]]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	command, err := server()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cli.Run(command))
}
