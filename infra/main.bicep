// Graphpost in one resource group: `azd up` deploys this. Every choice has its reason in docs/deployment.md.
targetScope = 'subscription'

@minLength(1)
@maxLength(64)
@description('Name of the azd environment. All names are made from it.')
param environmentName string

@description('Azure region. It must offer Flex Consumption: az functionapp list-flexconsumption-locations.')
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Object id of the person or service principal who deploys. Empty: nobody is given a role.')
param principalId string = ''

@allowed([
  'User'
  'Group'
  'ServicePrincipal'
])
@description('What the principal is.')
param principalType string = 'User'

@description('Give the person who deploys the roles to read and change records and keys, for backups and key rotation.')
param grantDeployer bool = false

@allowed([
  'create'
  'existing'
  'none'
])
@description('The Entra app registration: made here, one that exists, or added later over /v1/oauth2.')
param entraApp string = 'create'

@description('Client id of the registration, when it exists already.')
param entraClientId string = ''

@allowed([
  'identity'
  'secret'
  'certificate'
])
@description('How the app proves that it is the registration: the managed identity, or a secret or certificate in the vault.')
param entraCredential string = 'identity'

@allowed([
  'delegated'
  'application'
])
@description('Delegated: people sign in. Application: the app itself is allowed into mailboxes, limited by Exchange.')
param entraAccess string = 'delegated'

@allowed([
  'AzureADMyOrg'
  'AzureADMultipleOrgs'
])
@description('Who may sign in: people of this tenant, or of any tenant that consents.')
param signInAudience string = 'AzureADMyOrg'

@allowed([
  ''
  'global'
  'gcc-high'
  'dod'
  'china'
])
@description('National cloud of the mailboxes. Empty: the one that this Azure belongs to.')
param graphCloud string = ''

@description('Public base URL, when the service has a domain of its own. Empty: the address of the function app.')
param serviceUrl string = ''

@description('SHA-256 of the first API token, lower-case hex; `none` or `new` as words. The token itself is never given to Azure.')
param bootstrapTokenId string = ''

@secure()
@description('The first key ring, `name:base64`. Written once: a vault that has one keeps its own.')
param keyRing string = ''

@allowed([
  'mime'
  'structured'
])
@description('How mail travels to Microsoft Graph.')
param sendFormat string = 'mime'

@minValue(1)
@maxValue(3600)
@description('The shortest wait, in seconds, between two looks into a mailbox without push.')
param pollIntervalSeconds int = 15

@minValue(1)
@maxValue(3600)
@description('The longest such wait, reached in a quiet mailbox.')
param pollLongestSeconds int = 300

@description('Networks inside which webhooks may be sent: CIDRs apart by blanks, `all`, or `none`.')
param webhookPrivateTargets string = 'none'

@description('Whether `GET /v1/account/{account}/oauth-token` hands out what opens a mailbox.')
param oauthTokensApi bool = false

@allowed([
  512
  2048
  4096
])
@description('Memory of an instance in MB.')
param instanceMemory int = 2048

@minValue(40)
@maxValue(1000)
@description('The most instances of each function group.')
param maximumInstances int = 40

@minValue(0)
@maxValue(20)
@description('HTTP instances that are always warm, so that the handshake of Microsoft Graph never meets a cold start.')
param alwaysReadyHttp int = 0

@minValue(1)
@maxValue(1000)
@description('HTTP requests at once in one instance.')
param httpConcurrency int = 16

@description('Spread the plan over availability zones. Needs a region with zones and two always-ready instances or none.')
param zoneRedundant bool = false

@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
])
@description('Copies of the storage account: in one place, over zones, or also in the paired region.')
param storageRedundancy string = 'Standard_ZRS'

@description('Put storage and vault behind private endpoints. The API itself stays public, since Microsoft Graph must reach it.')
param vnetEnabled bool = false

@description('Address space of the virtual network.')
param vnetAddressPrefix string = '10.20.0.0/24'

@description('Keep deleted vaults for good until their time is over. Can not be undone; false for test environments only.')
param purgeProtection bool = true

@description('Also send the read, write and delete logs of storage to the workspace. They may cost more than all else.')
param storageLogs bool = false

@minValue(1)
@description('The most gigabytes of telemetry in a day. Beyond it nothing is recorded until the next day.')
param telemetryDailyGb int = 1

@minValue(30)
@maxValue(730)
@description('Days that telemetry is kept.')
param telemetryDays int = 30

@description('Where alerts go by e-mail. Empty: alerts are shown in the portal alone.')
param alertEmail string = ''

@description('More tags for everything, as an object of texts.')
param extraTags tagSet = {}

@description('Names and texts of tags.')
type tagSet = {
  @description('The text of a tag.')
  *: string
}

var abbreviations = loadJsonContent('abbreviations.json')
var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = union(extraTags, {
  'azd-env-name': environmentName
})
var siteName = '${abbreviations.functionApp}${token}'
var siteSuffixes = {
  AzureCloud: 'azurewebsites.net'
  AzureUSGovernment: 'azurewebsites.us'
  AzureChinaCloud: 'chinacloudsites.cn'
}
var ownUrl = 'https://${siteName}.${siteSuffixes[environment().name]}'
var publicUrl = empty(serviceUrl) ? ownUrl : serviceUrl
var clouds = {
  AzureCloud: 'global'
  AzureUSGovernment: 'gcc-high'
  AzureChinaCloud: 'china'
}
var cloud = empty(graphCloud) ? clouds[environment().name] : graphCloud
var clientId = entraApp == 'none' ? '' : (entraApp == 'existing' ? entraClientId : (registration.?outputs.clientId ?? ''))

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: '${abbreviations.resourceGroup}${environmentName}'
  location: location
  tags: tags
}

module identity 'app/identity.bicep' = {
  scope: group
  params: {
    name: '${abbreviations.identity}${token}'
    location: location
    tags: tags
  }
}

module monitoring 'app/monitoring.bicep' = {
  scope: group
  params: {
    workspaceName: '${abbreviations.workspace}${token}'
    componentName: '${abbreviations.component}${token}'
    location: location
    tags: tags
    dailyGb: telemetryDailyGb
    days: telemetryDays
  }
}

module storage 'app/storage.bicep' = {
  scope: group
  params: {
    name: '${abbreviations.storage}${token}'
    location: location
    tags: tags
    sku: storageRedundancy
    isPrivate: vnetEnabled
    workspaceId: monitoring.outputs.workspaceId
    logs: storageLogs
  }
}

module vault 'app/vault.bicep' = {
  scope: group
  params: {
    name: '${abbreviations.vault}${token}'
    location: location
    tags: tags
    isPrivate: vnetEnabled
    purgeProtection: purgeProtection
    keyRing: keyRing
    workspaceId: monitoring.outputs.workspaceId
  }
}

module access 'app/access.bicep' = {
  scope: group
  params: {
    storageName: storage.outputs.name
    vaultName: vault.outputs.name
    componentName: monitoring.outputs.componentName
    identityPrincipalId: identity.outputs.principalId
    deployerId: grantDeployer && principalType == 'User' ? principalId : ''
  }
}

module network 'app/network.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    name: '${abbreviations.network}${token}'
    location: location
    tags: tags
    addressPrefix: vnetAddressPrefix
    storageId: storage.outputs.id
    vaultId: vault.outputs.id
  }
}

module registration 'app/entra.bicep' = if (entraApp == 'create') {
  scope: group
  params: {
    uniqueName: 'graphpost-${token}'
    displayName: 'Graphpost ${environmentName}'
    signInAudience: signInAudience
    redirectUris: union([
      '${ownUrl}/oauth'
    ], [
      '${publicUrl}/oauth'
    ])
    access: entraAccess
    identityPrincipalId: identity.outputs.principalId
  }
}

module api 'app/api.bicep' = {
  scope: group
  params: {
    planName: '${abbreviations.plan}${token}'
    siteName: siteName
    location: location
    tags: tags
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    blobEndpoint: storage.outputs.blobEndpoint
    queueEndpoint: storage.outputs.queueEndpoint
    tableEndpoint: storage.outputs.tableEndpoint
    packageContainer: storage.outputs.packageContainer
    connectionString: monitoring.outputs.connectionString
    workspaceId: monitoring.outputs.workspaceId
    secretsUrl: vault.outputs.secretsUrl
    subnetId: vnetEnabled ? (network.?outputs.integrationSubnetId ?? '') : ''
    serviceUrl: publicUrl
    bootstrapTokenId: length(bootstrapTokenId) == 64 ? bootstrapTokenId : ''
    oauthClientId: clientId
    oauthCredential: empty(clientId) ? 'none' : entraCredential
    oauthProvider: entraAccess == 'application' ? 'outlookService' : 'outlook'
    oauthAuthority: signInAudience == 'AzureADMyOrg' || entraAccess == 'application' ? tenant().tenantId : 'organizations'
    oauthCloud: cloud
    sendFormat: sendFormat
    pollIntervalSeconds: pollIntervalSeconds
    pollLongestSeconds: pollLongestSeconds
    webhookPrivateTargets: webhookPrivateTargets
    oauthTokensApi: oauthTokensApi
    instanceMemory: instanceMemory
    maximumInstances: maximumInstances
    alwaysReadyHttp: alwaysReadyHttp
    httpConcurrency: httpConcurrency
    zoneRedundant: zoneRedundant
  }
  dependsOn: [
    access
  ]
}

module alerts 'app/alerts.bicep' = {
  scope: group
  params: {
    groupName: '${abbreviations.actionGroup}${token}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    email: alertEmail
  }
}

module workbook 'app/workbook.bicep' = {
  scope: group
  params: {
    displayName: 'Graphpost ${environmentName}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

@description('The resource group of everything.')
output AZURE_RESOURCE_GROUP string = group.name

@description('The tenant in which all this lives.')
output AZURE_TENANT_ID string = tenant().tenantId

@description('Name of the function app.')
output FUNCTION_APP_NAME string = api.outputs.siteName

@description('Public base URL of the API.')
output SERVICE_URL string = publicUrl

@description('Name of the vault with the key ring.')
output KEY_VAULT_NAME string = vault.outputs.name

@description('Name of the storage account.')
output STORAGE_ACCOUNT_NAME string = storage.outputs.name

@description('Client id of the Entra app registration, or nothing.')
output ENTRA_APP_CLIENT_ID string = clientId

@description('Object id of its enterprise application, or nothing when the registration was not made here.')
output ENTRA_SERVICE_PRINCIPAL_ID string = entraApp == 'create' ? (registration.?outputs.servicePrincipalId ?? '') : ''

@description('Object id of the managed identity, for a federated credential made by hand.')
output IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId

@description('Resource id of the workbook.')
output WORKBOOK_ID string = workbook.outputs.id
