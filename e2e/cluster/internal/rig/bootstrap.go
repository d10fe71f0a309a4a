package rig

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

const (
	dnsUser     = "system:coredns"
	volumesUser = "system:local-volumes"
)

// bootstrap creates what the components that are no part of Kubernetes itself
// need. What is there already is left as it is.
func bootstrap(ctx context.Context, client kubernetes.Interface, c Config) error {
	read := []string{"get", "list", "watch"}
	if err := grant(ctx, client, dnsUser,
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"endpoints", "services", "pods", "namespaces"}, Verbs: read},
		rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
	); err != nil {
		return err
	}
	if err := grant(ctx, client, volumesUser,
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: append([]string{"create", "delete"}, read...)},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}, Verbs: read},
	); err != nil {
		return err
	}
	if err := createStorageClass(ctx, client); err != nil {
		return err
	}
	return createDNSService(ctx, client, c)
}

func create(what string, err error) error {
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s: %w", what, err)
	}
	return nil
}

// grant gives a user a cluster role of its own name.
func grant(ctx context.Context, client kubernetes.Interface, user string, rules ...rbacv1.PolicyRule) error {
	rbac := client.RbacV1()
	_, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{})
	if err := create("the cluster role "+user, err); err != nil {
		return err
	}
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	return create("the cluster role binding "+user, err)
}

// createDNSService puts CoreDNS, which runs on the node and not in a pod,
// behind the Service that every cluster has.
func createDNSService(ctx context.Context, client kubernetes.Interface, c Config) error {
	const namespace, name = metav1.NamespaceSystem, "kube-dns"
	// Not by trying to create it: that its address is taken would be found first.
	if _, err := client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
		return nil
	} else if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for the Service kube-dns: %w", err)
	}
	labels := map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
	udp, tcp, port := corev1.ProtocolUDP, corev1.ProtocolTCP, int32(53)
	dns, dnsTCP, ready := "dns", "dns-tcp", true
	_, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "spillway-cluster",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &dns, Protocol: &udp, Port: &port}, {Name: &dnsTCP, Protocol: &tcp, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{c.NodeAddress()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}, metav1.CreateOptions{})
	if err := create("the endpoints of kube-dns", err); err != nil {
		return err
	}
	_, err = client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.ServiceSpec{ClusterIP: c.DNSAddress(), Ports: []corev1.ServicePort{
			{Name: "dns", Protocol: udp, Port: port, TargetPort: intstr.FromInt32(port)},
			{Name: "dns-tcp", Protocol: tcp, Port: port, TargetPort: intstr.FromInt32(port)},
		}},
	}, metav1.CreateOptions{})
	return create("the Service kube-dns", err)
}

func createStorageClass(ctx context.Context, client kubernetes.Interface) error {
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: "local", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:       volumesProvisioner,
		VolumeBindingMode: &wait,
	}, metav1.CreateOptions{})
	return create("the StorageClass local", err)
}
