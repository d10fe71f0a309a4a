package rig

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Persistent volumes are directories on the node. They go with their claim, or
// are kept when the volume's reclaim policy was changed to Retain.

const (
	volumesProvisioner = "spillway.dev/local-volumes"
	volumesDir         = "/var/local-volumes"

	provisionerAnnotation   = "volume.kubernetes.io/storage-provisioner"
	selectedNodeAnnotation  = "volume.kubernetes.io/selected-node"
	provisionedByAnnotation = "pv.kubernetes.io/provisioned-by"
)

// LocalVolumesMain is the program local-volumes: kubeconfig and node name are
// its arguments.
func LocalVolumesMain() {
	if len(os.Args) != 3 {
		log.Fatal("usage: local-volumes KUBECONFIG NODE")
	}
	if err := provisionVolumes(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func provisionVolumes(kubeconfig, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	// The resync is what tries again after an error.
	factory := informers.NewSharedInformerFactory(client, 10*time.Second)
	handler := func(handle func(any) error) cache.ResourceEventHandlerFuncs {
		report := func(object any) {
			if err := handle(object); err != nil {
				log.Print(err)
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: report, UpdateFunc: func(_, object any) { report(object) }}
	}
	ctx := context.Background()
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handle   func(any) error
	}{
		{factory.Core().V1().PersistentVolumeClaims().Informer(), func(object any) error {
			claim, ok := object.(*corev1.PersistentVolumeClaim)
			if !ok || !wantsVolume(claim, node) {
				return nil
			}
			return provide(ctx, client, claim, node)
		}},
		{factory.Core().V1().PersistentVolumes().Informer(), func(object any) error {
			volume, ok := object.(*corev1.PersistentVolume)
			if !ok || !isForgotten(volume) {
				return nil
			}
			return discard(ctx, client, volume)
		}},
	} {
		if _, err := w.informer.AddEventHandler(handler(w.handle)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	factory.Start(ctx.Done())
	select {}
}

func wantsVolume(claim *corev1.PersistentVolumeClaim, node string) bool {
	return claim.Status.Phase == corev1.ClaimPending && claim.DeletionTimestamp == nil && claim.Spec.VolumeName == "" &&
		claim.Annotations[provisionerAnnotation] == volumesProvisioner && claim.Annotations[selectedNodeAnnotation] == node
}

func isForgotten(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[provisionedByAnnotation] == volumesProvisioner && volume.Status.Phase == corev1.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && volume.DeletionTimestamp == nil
}

func volumePath(name string) string { return filepath.Join(volumesDir, filepath.Base(name)) }

func provide(ctx context.Context, client kubernetes.Interface, claim *corev1.PersistentVolumeClaim, node string) error {
	name := "pvc-" + string(claim.UID)
	// Writable for all, as the node cannot know under which user the pod runs.
	if err := os.MkdirAll(volumePath(name), 0o777); err != nil {
		return fmt.Errorf("make the volume: %w", err)
	}
	if err := os.Chmod(volumePath(name), 0o777); err != nil {
		return fmt.Errorf("open the volume for pods: %w", err)
	}
	class := ""
	if claim.Spec.StorageClassName != nil {
		class = *claim.Spec.StorageClassName
	}
	_, err := client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedByAnnotation: volumesProvisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			StorageClassName:              class,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: volumePath(name)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
				}},
			}}}},
		},
	}, metav1.CreateOptions{})
	return create("the volume "+name, err)
}

func discard(ctx context.Context, client kubernetes.Interface, volume *corev1.PersistentVolume) error {
	if err := os.RemoveAll(volumePath(volume.Name)); err != nil {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	if err := client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the volume %s: %w", volume.Name, err)
	}
	return nil
}
