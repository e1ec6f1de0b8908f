################################################################################
#
# hal-provisioner
#
################################################################################

HAL_PROVISIONER_VERSION = 0.1.0
HAL_PROVISIONER_SITE = $(BR2_EXTERNAL_HAL_PATH)/services
HAL_PROVISIONER_SITE_METHOD = local
HAL_PROVISIONER_LICENSE = Apache-2.0
HAL_PROVISIONER_LICENSE_FILES = LICENSE
HAL_PROVISIONER_DEPENDENCIES = hal-os hal-selector host-python3

# The licence is the whole project's and lies beside the services.
define HAL_PROVISIONER_COPY_LICENSE
	cp $(BR2_EXTERNAL_HAL_PATH)/LICENSE $(@D)/LICENSE
endef
HAL_PROVISIONER_POST_RSYNC_HOOKS += HAL_PROVISIONER_COPY_LICENSE

define HAL_PROVISIONER_INSTALL_TARGET_CMDS
	$(call hal-install-services,$(@D),provisioner)
	$(call hal-install-rendered, \
		usr/bin/hal-provision usr/lib/hal/resolver? srv/models/*?)
endef

define HAL_PROVISIONER_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered, \
		usr/lib/systemd/system/hal-provision.* \
		usr/lib/systemd/system/hal-resolver.*?)
endef

define HAL_PROVISIONER_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S80hal-provision usr/lib/hal/filters/hal-provision.*)
endef

define HAL_PROVISIONER_USERS
	hal-provision 903 hal-provision 903 * - /usr/sbin/nologin - hal provision
endef

define HAL_PROVISIONER_PERMISSIONS
	/usr/bin/hal-provision f 755 0 0 - - - - -
	/usr/lib/hal/services/provisioner r -1 0 0 - - - - -
endef

$(eval $(generic-package))
