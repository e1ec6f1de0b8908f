################################################################################
#
# hal-selector
#
################################################################################

HAL_SELECTOR_VERSION = 0.1.0
HAL_SELECTOR_SITE = $(BR2_EXTERNAL_HAL_PATH)/services
HAL_SELECTOR_SITE_METHOD = local
HAL_SELECTOR_LICENSE = Apache-2.0
HAL_SELECTOR_LICENSE_FILES = LICENSE
HAL_SELECTOR_DEPENDENCIES = hal-os host-python3

# The licence is the whole project's and lies beside the services.
define HAL_SELECTOR_COPY_LICENSE
	cp $(BR2_EXTERNAL_HAL_PATH)/LICENSE $(@D)/LICENSE
endef
HAL_SELECTOR_POST_RSYNC_HOOKS += HAL_SELECTOR_COPY_LICENSE

define HAL_SELECTOR_INSTALL_TARGET_CMDS
	$(call hal-install-services,$(@D),__init__.py terminal.py selector)
	$(call hal-install-rendered, \
		usr/bin/hal-selector usr/lib/hal/control \
		etc/hal/selector.env etc/hal/selector.json etc/hal/routes.json)
endef

define HAL_SELECTOR_INSTALL_INIT_SYSTEMD
	$(call hal-install-rendered, \
		usr/lib/systemd/system/hal-selector.* \
		usr/lib/systemd/system/hal-control.*)
endef

define HAL_SELECTOR_INSTALL_INIT_SYSV
	$(call hal-install-rendered, \
		etc/init.d/S65hal-control etc/init.d/S70hal-selector \
		usr/lib/hal/filters/hal-selector.*)
endef

# Numbers are fixed, so that files on the state partition keep their owners
# from image to image.
define HAL_SELECTOR_USERS
	- - hal-control 900 - - - - Who may give hal-control orders
	hal-selector 902 hal-selector 902 * - /usr/sbin/nologin - hal selector
endef

define HAL_SELECTOR_PERMISSIONS
	/usr/bin/hal-selector f 755 0 0 - - - - -
	/usr/lib/hal/control f 755 0 0 - - - - -
	/usr/lib/hal/services/selector r -1 0 0 - - - - -
endef

$(eval $(generic-package))
